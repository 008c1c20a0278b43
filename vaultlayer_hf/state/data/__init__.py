"""Where a training is in its data, kept with each checkpoint, so that a resume goes on with the very same numbers.

    completing.py the rows with which a loader for all ranks completes its last batch
    feed.py       the batches of a pass as the loop gets them
    fetches.py    what is noted of a pass while its batches are fetched
    followed.py   DataLoaders that are followed
    follower.py   follows a DataLoader in place, and reopens a pass where a checkpoint left it
    guard.py      ends the following at the first error inside it
    inner.py      generators and counters inside a data set or a collator
    likeness.py   what a run is like, as far as its numbers follow from it; and how two runs differ
    opening.py    makes a DataLoader's iterators with our parts in them
    order.py      the indices that a sampler gives
    placed.py     a loader that keeps its own place and was given to add()
    probed.py     whether a stream of ``datasets`` goes on where its ``state_dict`` says
    position.py   what is kept of a training's place in its data
    samplers.py   what the order of a loader follows from
    sources.py    data sets that tell where they are
    weights.py    the weights by which a sampler draws rows, where the loop changes them
    workers.py    the state of a loader's worker processes

Following only reads: an unbroken run draws the same random numbers with it and without.

Imports base, errors and random_state.py; session and the seams import it.
"""
