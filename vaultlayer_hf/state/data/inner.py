"""Generators and counters inside a data set or a collator: what its next item may follow from.

Objects that tell their own state (``state_dict``) are asked for it elsewhere; this is for the others. Generators are
found a few attributes deep, and among what their functions read, as an ``rng`` at a script's top. Of plain numbers only
those are kept that have moved since the run began, also in attributes of classes, modules and functions: the others
are the script's to choose. Of those that have moved it is known what they began with, so that one that a script sets
ahead of each pass can be told from one that counts.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vaultlayer_hf.state.functions import reached
from vaultlayer_hf.state.generator_states import (
    is_generator,
    is_kind_of,
    resume_generator,
    state_of,
    states_of,
)
from vaultlayer_hf.state.places import FunctionVariables, Place

_DEPTH, _MOST = 3, 200
"""How many attributes deep, and in how many objects at most, generators are searched for: this runs once a loader."""
_ITEMS = 32
"""Items of a list or a dictionary that are looked at."""
_CONTAINERS = (list, tuple, dict, functools.partial)
_FOREIGN = ("torch", "datasets", "pyarrow", "pandas", "tokenizers", "numpy", "PIL")
"""Packages whose objects hold no generator of a script's, and much else."""

_FILE_NUMBER = re.compile(r"(^|[._])(fd|fileno|handle|descriptor)$", re.IGNORECASE)
"""Ends of the names by which a number is taken for an open file's, where it is one's."""

InnerState = dict[str, Any]
_At = tuple[Any, str]
"""An object, and the name of one of its attributes, or the place of an item or a bound argument in it."""


class Inner:
    """The generators and counters inside some objects.

    Args:
        things: the objects, by a name that is the same in a later run.
    """

    def __init__(self, **things: Any) -> None:
        self._owners = owners(**things)
        self._generators: dict[str, _At] = {}
        self._counters: dict[str, tuple[FunctionVariables, str]] = {}
        self._members: dict[str, Place] = {}  # of classes, modules and functions
        for path, owner in self._owners.items():
            self._generators |= _generators_below(path, owner)
            for name, place in reached([owner]).items():
                # The generator itself, in a list: a function's variable has no object around it.
                self._generators |= {
                    f"{path}:{name}.{variable}": ([one], "0")
                    for variable, one in place.values().items()
                    if is_generator(one)
                }
                if isinstance(place, FunctionVariables):
                    self._counters |= {f"{path}:{name}.{one}": (place, one) for one in place.assigned()}
                else:
                    self._members[f"{path}:{name}"] = place
        self._first = self._numbers()

    @property
    def generators(self) -> list[str]:
        """Paths of the random generators that were there at first."""
        at_top = {f"{path}.{name}" for path, owner in self._owners.items() for name in states_of(vars(owner))}
        return sorted(at_top | set(self._generators))

    def take(self) -> InnerState:
        """Return their states; only tensors, numbers, text and tuples."""
        found: InnerState = {}
        for path, owner in self._owners.items():  # also those that were made since, at the top of an object
            found |= {f"{path}.{name}": state for name, state in states_of(vars(owner)).items()}
        for path, at in self._generators.items():
            if (state := state_of(_get(*at))) is not None:
                found[path] = state
        for path, value in self._numbers().items():
            if self._first.get(path) != value and not _is_open_file(path, value):
                of_process = _is_of_process(path, value)
                found[path] = ("process", None) if of_process else ("number", value, self._first.get(path))
        return found

    def put(self, state: InnerState, *, steady: Collection[str] = ()) -> None:
        """Put back what ``take`` returned, where there still is such a place.

        ``steady``: paths of numbers that the script may have set by now. One that isn't what the run began with is such
        a one, and stays.
        """
        numbers = self._numbers() if steady else {}
        for path, kept in state.items():
            if kept[0] == "number" and len(kept) > 2:
                self._first[path] = kept[2]
                if path in steady and numbers.get(path) != kept[2]:
                    continue
            above, _, name = path.rpartition(".")
            owner, name = self._generators.get(path, (self._owners.get(above), name))
            number = is_number_kept(kept)
            if number and path in self._counters:
                place, name = self._counters[path]
                place.put(name, _number_of(kept))
            elif number and above in self._members:
                self._members[above].put(name, _number_of(kept))
            elif owner is not None:
                _put(owner, name, kept)

    def _numbers(self) -> dict[str, int | float]:
        found = {
            f"{path}.{name}": value
            for path, owner in self._owners.items()
            for name, value in own_numbers(owner).items()
        }
        for path, (place, name) in self._counters.items():
            if _is_number(value := place.value_of(name)):
                found[path] = value
        for path, members in self._members.items():
            found |= {f"{path}.{name}": one for name, one in members.values().items() if _is_number(one)}
        return found


def _wrapped(things: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield objects with their paths, and those that the Trainer, or torch, has wrapped in one of its own.

    Such as the data sets within a ``Subset``, or a ``ConcatDataset`` of them.
    """
    waiting, seen = list(things.items()), set[int]()
    while waiting and len(seen) < _MOST:
        path, thing = waiting.pop(0)
        if not hasattr(thing, "__dict__") or id(thing) in seen:
            continue
        seen.add(id(thing))
        yield path, thing
        inside = [("data_collator", vars(thing).get("data_collator"))]
        if type(thing).__module__.startswith("torch.utils.data"):
            every = vars(thing).get("datasets")
            every = list(every.values()) if isinstance(every, dict) else list(every or ())
            inside += [
                ("dataset", vars(thing).get("dataset")),
                *((str(n), one) for n, one in enumerate(every)),
            ]
        waiting += [(f"{path}.{name}", one) for name, one in inside if one is not None]


def owners(**things: Any) -> dict[str, Any]:
    """Return the objects that hold what ``Inner`` keeps, by their paths."""
    return dict(_wrapped(things))


def data_sets(dataset: Any) -> list[Any]:
    """Return a data set, and those within it, which torch's own classes have wrapped."""
    return [one for _, one in _wrapped({"": dataset})]


def own_numbers(owner: Any) -> dict[str, int | float]:
    """Return the plain numbers that an object holds, by its attributes' names."""
    return {
        name: value
        for name, value in list(vars(owner).items())  # its own thread may add to it
        if _is_number(value)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def put_generators(owner: Any, states: InnerState) -> None:
    """Put back the states of generators that an object holds by itself, where there still is such an attribute."""
    for name, state in states.items():
        if hasattr(owner, name):
            _put(owner, name, state)


def _generators_below(path: str, thing: Any) -> dict[str, _At]:
    """Return where generators are below an object, by their paths."""
    found: dict[str, _At] = {}
    seen: set[int] = set()
    waiting = [(path, thing, 0)]
    while waiting and len(seen) < _MOST:
        path, owner, depth = waiting.pop(0)
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in _attributes(owner):
            if is_generator(value):
                found[f"{path}.{name}"] = (owner, name)
            elif depth < _DEPTH and (isinstance(value, _CONTAINERS) or _is_of_script(value)):
                waiting.append((f"{path}.{name}", value, depth + 1))
    return found


def _attributes(owner: Any) -> list[tuple[str, Any]]:
    if isinstance(owner, (list, tuple)):
        return [(str(number), value) for number, value in enumerate(owner[:_ITEMS])]
    if isinstance(owner, dict):
        return [(str(key), value) for key, value in list(owner.items())[:_ITEMS]]
    if isinstance(owner, functools.partial):
        return _attributes([*owner.args, *owner.keywords.values()])
    return list(vars(owner).items())


def _is_of_script(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, type) and package not in _FOREIGN


def _get(owner: Any, name: str) -> Any:
    if isinstance(owner, dict):
        return next((value for key, value in owner.items() if str(key) == name), None)
    if isinstance(owner, functools.partial):
        owner = [*owner.args, *owner.keywords.values()]
    return owner[int(name)] if isinstance(owner, (list, tuple)) else getattr(owner, name, None)


def _is_of_process(path: str, value: int | float) -> bool:
    """Tell whether a number is this process's: what an object notes to tell whether its generator is of this one.

    So does the collator for masked language modeling of transformers, which begins it anew in any other process.
    """
    return value == os.getpid() and "pid" in path.rpartition(".")[2].lower()


def _is_open_file(path: str, value: int | float) -> bool:
    """Tell whether a number is that of a file that this process has opened, as in ``self._fd = os.open(path, 0)``.

    In another process it is another file's, or none's.
    """
    if not _FILE_NUMBER.search(path) or not isinstance(value, int):
        return False
    try:
        os.fstat(value)
    except (OSError, OverflowError):
        return False
    return True


def steady_numbers(then: InnerState, now: InnerState) -> set[str]:
    """Return the paths of numbers that have moved since the run began, and not between two states."""
    return {
        path
        for path, kept in now.items()
        if kept[0] == "number" and path in then and tuple(kept[:2]) == tuple(then[path][:2])
    }


def is_number_kept(kept: Sequence[Any]) -> bool:
    """Tell whether what ``Inner.take`` has returned for a place is a number, and not a generator's state."""
    return kept[0] in ("number", "process")


def _number_of(kept: Sequence[Any]) -> int | float:
    """Return the number that was kept; of one that is its process's, this process's."""
    number: int | float = os.getpid() if kept[0] == "process" else kept[1]
    return number


def _put(owner: Any, name: str, kept: Any) -> None:
    kind = kept[0]
    if is_number_kept(kept):
        setattr(owner, name, _number_of(kept))
        return
    value = _get(owner, name)
    if is_kind_of(value, kind):
        resume_generator(value, kept)
    elif value is None and not isinstance(owner, _CONTAINERS):  # made by the first use
        setattr(owner, name, resume_generator(None, kept))
