"""Large files are moved by a process of low priority.

    mover.py    the process that moves large files
    store.py    a store whose large files are moved by a process of its own
    worker.py   what runs in the process that moves large files

Imports stores and base; uploader.py imports it.
"""
