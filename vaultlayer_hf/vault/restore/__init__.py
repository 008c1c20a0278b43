"""Bring a committed checkpoint onto the disk, verified, or not at all.

    download.py   fetch files of a checkpoint onto the disk, in memory that doesn't grow with them
    names.py      names that a disk takes for one
    ranges.py     large files are fetched by ranged reads in parallel and taken in order
    restore.py    bring a committed checkpoint onto the local disk, verified, or not at all
    sizes.py      what a listing alone shows of a checkpoint's files

Imports log, snapshot and manifest; session/start and reader import it.
"""
