"""Preemption: what announces that this process will be ended, what still fits before that, and how it ends."""
