"""Is a resume the same run? Fifteen scenarios, stock against ours, by ``python -m tests.exact``."""
