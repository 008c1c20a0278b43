"""What to keep, what to retire, and deleting it.

    policy.py   which checkpoints to keep and why
    prune.py    retire by an entry first, delete after
    tidy.py     what a commit makes superfluous, in the vault and on the local disk

Imports log, snapshot and manifest; upload, session and cli import it.
"""
