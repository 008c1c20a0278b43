"""The state of a random generator of torch, Python or numpy as what a file holds, and back in one, or in a new one."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy
import torch

GeneratorState = tuple[str, Any]
"""A kind, and its content: what ``torch.load(weights_only=True)`` reads."""


def state_of(value: Any) -> GeneratorState | None:
    """Return a generator's state; None for what is none, or draws from the system.

    >>> state_of(random.SystemRandom()) is state_of(7) is None
    True
    """
    if isinstance(value, torch.Generator):
        return ("torch", value.get_state())
    if isinstance(value, random.Random):
        try:
            return ("python", value.getstate())
        except NotImplementedError:  # SystemRandom
            return None
    if isinstance(value, numpy.random.Generator):
        return ("numpy", json.dumps(value.bit_generator.state, default=lambda array: array.tolist()))
    if isinstance(value, numpy.random.RandomState):
        return ("numpy-old", json.dumps(value.get_state(legacy=False), default=lambda array: array.tolist()))
    return None


def fingerprint_of(generator: Any) -> int:
    """Return a number that is another one as soon as the generator has drawn; 0 for one that draws from the system.

    Two of one process can be compared.
    """
    kind, state = state_of(generator) or ("", 0)
    # The text of a tensor leaves out all but its ends, and there a torch.Generator's state never changes.
    return hash(state.numpy().tobytes() if kind == "torch" else state)


def is_kind_of(value: Any, kind: str) -> bool:
    """Tell whether a value is a generator that a state of this kind goes into."""
    return isinstance(value, _KINDS[kind])


def put_state(generator: Any, kept: GeneratorState) -> None:
    """Have a generator of this kind go on from there."""
    kind, state = kept
    if kind == "torch":
        generator.set_state(state)
    elif kind == "python":
        generator.setstate(state)
    elif kind == "numpy":
        generator.bit_generator.state = _with_arrays(json.loads(state))
    else:
        generator.set_state(_with_arrays(json.loads(state)))


def made_from(kept: GeneratorState) -> Any:
    """Return a new generator that goes on from there: for one that a script makes at its first use.

    >>> one = numpy.random.default_rng(0)
    >>> other = made_from(state_of(one))
    >>> one.random() == other.random()
    True
    """
    kind, state = kept
    if kind == "numpy":
        made: Any = numpy.random.Generator(getattr(numpy.random, json.loads(state)["bit_generator"])())
    else:
        made = _KINDS[kind]()
    put_state(made, kept)
    return made


_KINDS: dict[str, type] = {
    "torch": torch.Generator,
    "python": random.Random,
    "numpy": numpy.random.Generator,
    "numpy-old": numpy.random.RandomState,
}


def _with_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _with_arrays(value) for name, value in state.items()}
    return numpy.array(state, dtype=numpy.uint64) if isinstance(state, list) else state
