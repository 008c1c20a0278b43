"""A training's state copied while it trains on, and the files that are written from the copy.

    arena.py      host memory made ready beforehand
    copier.py     the copies of one training, one at a time, and the thread that writes from them
    copying.py    one copy, most of it made while the training computes
    direct.py     a file that is written past the page cache
    fit.py        whether saves run beside the training, and what of its optimizers decides that
    frames.py     what stands around the contents of a file, learnt from one that its library wrote
    frozen.py     a state dict as it is now, to be pickled later
    memory.py     how much memory this process may still take
    recorded.py   what a save would have written, recorded while it runs
    stepped.py    which tensors an optimizer's step changes
    writing.py    writes recorded files from the copy

Imports torch, safetensors and base; session/save and the seams import it.
"""
