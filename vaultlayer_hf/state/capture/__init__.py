"""A training's state copied while it trains on, and the files that are written from the copy.

    arena.py      host memory made ready beforehand
    copying.py    the copy: what may change at once at once, the rest while the training computes
    memory.py     how much memory this process may still take
    recorded.py   what a save would have written, recorded while it runs

Imports torch, safetensors and base; the seams import it.
"""
