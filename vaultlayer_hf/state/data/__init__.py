"""Where a training is in its data, kept with each checkpoint, so that a resume goes on with the very same numbers.

    samplers.py   what a loader's order follows from
    inner.py      generators and counters inside a data set or a collator
    workers.py    the random state of worker processes, told with each batch
    order.py      the indices that a sampler gives: held, left out, counted
    followed.py   which loaders can be followed, and the class that they have meanwhile
    fetches.py    what is noted of a pass while its batches are fetched
    feed.py       the batches of a pass as the loop gets them
    opening.py    makes torch's iterators: as torch does, or as they were
    follower.py   follows a DataLoader in place, and reopens a pass where it was left
    position.py   what is kept of it
    likeness.py    whether a run that goes on is the one that wrote it

Following only reads: an unbroken run draws the same random numbers with it and without.
"""
