"""Benchmarks: what vaultlayer_hf costs, and how fast it moves checkpoints. ``python -m tests.benchmarks``."""
