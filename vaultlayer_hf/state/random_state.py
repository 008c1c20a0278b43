"""The random number generators that a training draws from: taken, and put back, all at once.

What is taken holds only tensors, numbers and tuples, so that torch loads it with ``weights_only=True``.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def take_random_state(*, devices: bool = True) -> dict[str, Any]:
    """Return the states of Python's, NumPy's (where it is loaded), torch's and the accelerators' generators.

    Without ``devices`` for a process that must not touch an accelerator, such as a loader's worker.
    """
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, position, has_gauss, cached = numpy.random.get_state()
        state["numpy"] = (
            str(name),
            torch.from_numpy(keys.view(numpy.int32).copy()),  # not every torch saves uint32
            int(position),
            int(has_gauss),
            float(cached),
        )
    if devices and torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if devices and torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def put_random_state(state: dict[str, Any]) -> None:
    """Put back what ``take_random_state`` returned; of accelerators, those that are here."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy

        name, keys, position, has_gauss, cached = state["numpy"]
        numpy.random.set_state((name, keys.numpy().view(numpy.uint32), position, has_gauss, cached))
    for number, one in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, number)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def same_random_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two of what ``take_random_state`` returned are equal, as far as both have a generator."""
    return all(same_state(one[name], other[name]) for name in one if name in other)


def same_state(one: Any, other: Any) -> bool:
    """Tell whether the states of two generators are equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (list, tuple)) and any(isinstance(part, torch.Tensor) for part in one):
        return len(one) == len(other) and all(map(same_state, one, other))
    return bool(one == other)
