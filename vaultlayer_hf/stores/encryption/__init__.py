"""Encryption on this machine, ahead of the store: it holds what it can't read.

    key.py       the key that a variable names
    sealing.py   how bytes are sealed: segments of AES-GCM, each of which can be opened by itself
    store.py     a store whose checkpoint files are sealed

Imports the store's contract and base; stores/__init__.py wraps what it opens, where a key is set.
"""
