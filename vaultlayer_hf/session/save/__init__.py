"""A save: when, agreed by all ranks, and who uploads what.

    abandoned.py       what is said of a checkpoint that won't be committed
    async_trouble.py   what goes wrong with saves beside a training
    beside.py          what a script writes into its output folder beside the checkpoints
    cadence.py         how often to save
    full_disk.py       a disk that is full at a save
    nonfinite.py       a save of a run whose weights or loss are nan
    pacing.py          when to save, asked at the end of each step
    plan.py            what the ranks tell each other about a checkpoint
    rounds.py          a save of all ranks
    settings_pacer.py  the pacer that a session's settings ask for
    writing.py         writing a checkpoint's folder on all ranks

Imports session.py and the files beside it; start, stop and training.py import it.
"""
