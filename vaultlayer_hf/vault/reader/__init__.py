"""A vault from outside a run: list, verify, pull, pin, explain.

    append.py    an entry of the log made from outside a run
    archive.py   start over in the same vault: what it holds is kept under a name
    check.py     read a committed checkpoint past its digests, or only its sizes
    copy.py      copy a vault to another store: every live checkpoint, verified, and its log
    open.py      open a vault for reading
    pin.py       keep a checkpoint whatever the retention policy says, from any process
    pull.py      copy one checkpoint out of a vault into a folder of its own, verified, or not at all
    vault.py     a vault from outside a run: list, look into, verify, copy out, pin, archive
    why.py       why a checkpoint is, or is not, the one that the next start resumes from

Imports all of vault; cli and the public names import it.
"""
