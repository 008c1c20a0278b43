"""`vl demo`: placeholder until the seam is there."""

from __future__ import annotations


def demo() -> None:
    """Kill a training run in the middle of a save, and see it go on to the same weights."""
    raise NotImplementedError
