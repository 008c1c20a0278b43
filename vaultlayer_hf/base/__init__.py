"""What anything may use: events, files, digests, spans of time, texts.

    cells.py      the cells of a notebook
    digest.py     digests of content: ``blake3:<64 hex digits>``
    events.py     everything that happens to a run's checkpoints, said once, in one line
    files.py      durable operations on local files
    forks.py      what a forked child is to forget
    locks.py      locks on files and folders against other processes
    priority.py   uploads give way to training
    secrets.py    secrets are taken out of what this package writes
    short_traceback.py an error of ours ends a program with its message, not with our frames
    spans.py      spans that a setting gives as text: ``5min``, ``200 steps``, ``auto``
    text.py       sizes, spans of time and progress for people
    versions.py   the version of this release, and those of the libraries that write a checkpoint

Imports errors alone; every folder may import it.
"""
