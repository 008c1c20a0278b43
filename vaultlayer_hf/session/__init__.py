"""A run's life on a vault, for any seam: session.py is what a rank holds, training.py what a seam drives.

    access.py            getting at a vault at the start: open the store with patience, read the log, claim
    checkpoint_files.py  what a save and a start ask about a checkpoint's files
    lock.py              one run at a time in an ``output_dir``
    messages.py          messages between ranks
    observers.py         told of each training of this process
    option_names.py      options and variables that don't exist, each with the one that may have been meant
    option_values.py     how options are read from text and from variables
    output_dir.py        what lies in ``output_dir``
    place.py             which ranks see one file system
    process_group.py     the ranks of the process group that torch.distributed has set up in this process
    ranks.py             what the ranks of a run tell each other
    session.py           what a rank holds of a run on a vault
    settings.py          the options of a run, in one typed object; each is also an environment variable
    training.py          what a seam drives while it trains
    waiting.py           the wait for uploads behind the last step: how long, and what is said of it
    save/                a save: when, agreed by all ranks, and who uploads what
    start/               a start: which checkpoint the run goes on from, and bringing it to the disks
    stop/                what announces that this process will be ended, what still fits before that

Imports vault and below; trainer, loops and run import it.
"""
