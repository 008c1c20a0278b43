"""Retention: which checkpoints stay (policy.py, pure), and the deletion of the others."""
