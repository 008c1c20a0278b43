"""Whether a Trainer's resume loads the whole model, for each architecture: ``python -m tests.architectures``."""
