"""Generators and counters inside a data set or a collator: what its next item may follow from.

Objects that tell their own state (``state_dict``) are asked for it elsewhere; this is for the others. Generators are
found a few attributes deep, and among what their functions read, as an ``rng`` at a script's top. Of plain numbers only
those are kept that have moved since the run began: the others are the script's to choose.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch

from vaultlayer_hf.state.functions import generators_read

_DEPTH, _MOST = 3, 200
"""How many attributes deep, and in how many objects at most, generators are searched for: this runs once a loader."""
_FOREIGN = ("torch", "datasets", "pyarrow", "pandas", "tokenizers", "numpy", "PIL")
"""Packages whose objects hold no generator of a script's, and much else."""

InnerState = dict[str, Any]


class Inner:
    """The generators and counters inside some objects.

    Args:
        things: the objects, by a name that is the same in a later run.
    """

    def __init__(self, **things: Any) -> None:
        self._things = {name: thing for name, thing in things.items() if hasattr(thing, "__dict__")}
        self._owners = dict(_wrapped(self._things))
        self._deep: list[tuple[str, Any, str]] = []
        self._first = self._numbers()
        self.find_generators()

    def find_generators(self) -> None:
        """Note where generators are; ``take`` finds those that are made later, at the top of an object only."""
        self._deep = [place for name, thing in self._things.items() for place in _places(name, thing)]
        for name, thing in self._things.items():
            read = generators_read(thing)
            self._deep += [(f"{name}:{path}", [generator], "0") for path, generator in read.items()]

    def take(self) -> InnerState:
        """Return their states; only tensors, numbers, text and tuples."""
        found: InnerState = {}
        for path, owner, name in self._deep:
            state = _state_of(_get(owner, name))
            if state is not None:
                found[path] = state
        for thing, owner in self._owners.items():
            for name, value in list(vars(owner).items()):
                path = f"{thing}.{name}"
                if path not in found and (state := _state_of(value)) is not None:
                    found[path] = state
        for path, value in self._numbers().items():
            if self._first.get(path) != value:
                found[path] = ("process", None) if _is_of_process(path, value) else ("number", value)
        return found

    def put(self, state: InnerState) -> None:
        """Put back what ``take`` returned, where there still is such a place."""
        places = {path: (owner, name) for path, owner, name in self._deep}
        for path, kept in state.items():
            above, _, name = path.rpartition(".")
            owner, name = places.get(path, (self._owners.get(above), name))
            if owner is not None:
                _put(owner, name, kept)

    def _numbers(self) -> dict[str, int | float]:
        return {
            f"{path}.{name}": value
            for path, owner in self._owners.items()
            for name, value in own_numbers(owner).items()
        }


def _wrapped(things: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield objects with their paths, and the collators that the Trainer has wrapped in one of its own."""
    for path, thing in things.items():
        while thing is not None:
            yield path, thing
            path, thing = f"{path}.data_collator", vars(thing).get("data_collator")
            thing = thing if hasattr(thing, "__dict__") else None


def own_numbers(owner: Any) -> dict[str, int | float]:
    """Return the plain numbers that an object holds, by its attributes' names."""
    return {
        name: value
        for name, value in list(vars(owner).items())  # its own thread may add to it
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def own_generators(owner: Any) -> InnerState:
    """Return the states of the generators that an object holds by itself, by its attributes' names."""
    return {
        name: state for name, value in list(vars(owner).items()) if (state := _state_of(value)) is not None
    }


def put_generators(owner: Any, states: InnerState) -> None:
    """Put back what ``own_generators`` returned, where there still is such an attribute."""
    for name, state in states.items():
        if hasattr(owner, name):
            _put(owner, name, state)


def _places(path: str, thing: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield (path, owner, name) of each generator below an object."""
    seen: set[int] = set()
    waiting = [(path, thing, 0)]
    while waiting and len(seen) < _MOST:
        path, owner, depth = waiting.pop(0)
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in _attributes(owner):
            if _state_of(value) is not None:
                yield f"{path}.{name}", owner, name
            elif depth < _DEPTH and (isinstance(value, (list, tuple)) or _is_of_script(value)):
                waiting.append((f"{path}.{name}", value, depth + 1))


def _attributes(owner: Any) -> list[tuple[str, Any]]:
    if isinstance(owner, (list, tuple)):
        return [(str(number), value) for number, value in enumerate(owner[:32])]
    return list(vars(owner).items())


def _is_of_script(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, type) and package not in _FOREIGN


def _get(owner: Any, name: str) -> Any:
    return owner[int(name)] if isinstance(owner, (list, tuple)) else getattr(owner, name, None)


def _state_of(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, torch.Generator):
        return ("torch", value.get_state())
    if isinstance(value, random.Random):
        try:
            return ("python", value.getstate())
        except NotImplementedError:  # SystemRandom
            return None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return ("numpy", json.dumps(value.bit_generator.state, default=lambda array: array.tolist()))
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return ("numpy-old", json.dumps(value.get_state(legacy=False), default=lambda array: array.tolist()))
    return None


def _is_of_process(path: str, value: int | float) -> bool:
    """Tell whether a number is this process's: what an object notes to tell whether its generator is of this one.

    So does the collator for masked language modeling of transformers, which begins it anew in any other process.
    """
    return value == os.getpid() and "pid" in path.rpartition(".")[2].lower()


def _put(owner: Any, name: str, kept: tuple[str, Any]) -> None:
    kind, state = kept
    if kind in ("number", "process"):
        setattr(owner, name, state if kind == "number" else os.getpid())
        return
    value = _get(owner, name)
    if kind == "torch":
        if not isinstance(value, torch.Generator):  # made by the first use
            value = torch.Generator()
            setattr(owner, name, value)
        value.set_state(state)
    elif kind == "python" and isinstance(value, random.Random):
        value.setstate(state)
    elif kind == "numpy" and hasattr(value, "bit_generator"):
        value.bit_generator.state = _with_arrays(json.loads(state))
    elif kind == "numpy-old" and hasattr(value, "set_state"):
        value.set_state(_with_arrays(json.loads(state)))


def _with_arrays(state: Any) -> Any:
    import numpy

    if isinstance(state, dict):
        return {name: _with_arrays(value) for name, value in state.items()}
    return numpy.array(state, dtype=numpy.uint64) if isinstance(state, list) else state
