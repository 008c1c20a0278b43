"""The state of a random generator of torch, Python or numpy as what a file holds, and back in one, or in a new one."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy
import torch

GeneratorState = tuple[str, Any]
"""A kind, and its content: what ``torch.load(weights_only=True)`` reads."""
_KINDS: dict[str, type] = {
    "torch": torch.Generator,
    "python": random.Random,
    "numpy": numpy.random.Generator,
    "numpy-old": numpy.random.RandomState,
}
GENERATORS = tuple(_KINDS.values())


def is_generator(value: Any) -> bool:
    """Tell whether a value is a generator with a state: not one that draws from the system."""
    return isinstance(value, GENERATORS) and not isinstance(value, random.SystemRandom)


def state_of(value: Any) -> GeneratorState | None:
    """Return a generator's state; None for what is none, or draws from the system.

    >>> state_of(random.SystemRandom()) is state_of(7) is None
    True
    """
    if not is_generator(value):
        return None
    kind = next(name for name, cls in _KINDS.items() if isinstance(value, cls))
    try:
        state = value.get_state(legacy=False) if kind == "numpy-old" else bare_state(value)
    except NotImplementedError:  # of a class of the script's own that draws from elsewhere
        return None
    as_text = kind in ("numpy", "numpy-old")
    return (kind, json.dumps(state, default=lambda array: array.tolist()) if as_text else state)


def bare_state(generator: Any) -> Any:
    """Return the state of a generator as it tells it itself: not all of it is what ``weights_only=True`` reads."""
    if isinstance(generator, numpy.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def put_bare_state(generator: Any, state: Any) -> None:
    """Put back what ``bare_state`` has returned. Raises what a generator raises of a state that it can't take."""
    if isinstance(generator, numpy.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def generator_fingerprint(generator: Any) -> int:
    """Return a number that is another one as soon as the generator has drawn; 0 for one that draws from the system.

    Two of one process can be compared.
    """
    kept = state_of(generator)
    if kept is None:
        return 0
    kind, state = kept
    # The text of a tensor leaves out all but its ends, and there a torch.Generator's state never changes.
    return hash(state.numpy().tobytes() if kind == "torch" else state)


def states_of(values: Mapping[str, Any]) -> dict[str, GeneratorState]:
    """Return the states of the generators among some values, by their names."""
    return {
        name: state
        for name, value in list(values.items())  # a thread of the owner's may add to it
        if (state := state_of(value)) is not None
    }


def is_state(value: Any) -> bool:
    """Tell whether a value is what ``state_of`` returns of a generator."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in _KINDS


def is_kind_of(value: Any, kind: str) -> bool:
    """Tell whether a value is a generator that a state of this kind goes into."""
    return isinstance(value, _KINDS[kind])


def resume_generator(now: Any, kept: GeneratorState) -> Any:
    """Return a generator that goes on from a state: ``now`` itself, or a new one where that is none of this kind.

    Raises what a generator raises of a state that it can't take, such as one of another device.

    >>> first = numpy.random.default_rng(0)
    >>> later = resume_generator(None, state_of(first))
    >>> first.random() == later.random()
    True
    """
    kind, state = kept
    generator = now if is_kind_of(now, kind) else _make(kind, state)
    put_bare_state(generator, _with_arrays(json.loads(state)) if isinstance(state, str) else state)
    return generator


def _make(kind: str, state: Any) -> Any:
    if kind == "numpy":
        return numpy.random.Generator(getattr(numpy.random, json.loads(state)["bit_generator"])())
    return _KINDS[kind]()


def _with_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _with_arrays(value) for name, value in state.items()}
    return numpy.array(state, dtype=numpy.uint64) if isinstance(state, list) else state
