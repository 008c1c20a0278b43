"""Fingerprints of what a script's own objects hold: taken twice, they tell what training changes.

A callback's average, a trainer's counter, a queue of what was seen: a checkpoint holds none of these. Whether the
training hangs on them can't be told from outside, but whether they move can. Nothing is called that is the script's
own, and of what is large some places are looked at. Fingerprints of two processes can't be compared.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import sys
import weakref
from collections import deque
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.generator_states import GENERATORS, generator_fingerprint
from vaultlayer_hf.state.object_kinds import (
    BUFFERS,
    CONTAINERS,
    EXACT,
    PLAIN,
    attributes_of,
    beside_state,
    has_attributes,
    is_drawing_cache,
    is_iterator,
    is_meter,
    is_shared,
    knows_its_state,
    lacks_groups,
    name_of_definition,
    shared_content,
)
from vaultlayer_hf.state.tensor_digests import digest_tensors

Fingerprints = dict[str, Any]
"""By the path of each attribute, such as ``Average.shadow``, something that is equal as long as its value is."""
_PLACES = 64
"""Places of a container, and rows of a tensor, that are looked at: its first and last ones, and some between."""
_SMALL, _MANY = 1 << 16, 1 << 20
"""Values of a tensor, and plain ones of a container, up to which all of them are looked at."""
_FEW = 1 << 10
"""Values up to which the short containers among them are looked into: of 64 numbers each it takes 3 ms."""
_WHOLE = 1 << 24
"""Bytes of an array of numpy up to which all of it is looked at: unlike torch, numpy doesn't count changes."""
_NAME = 200
"""Characters of an attribute's name, such as a path to a module, that are told apart."""
DEPTH, _DEEPEST = 3, -2
"""How deep objects within objects are looked at: from this level down to that; plain values in containers deeper."""


def fingerprint_tensor(tensor: torch.Tensor) -> Any:
    """Return something that is equal as long as a tensor is; of a large one some rows are looked at."""
    flat = tensor.detach()
    if flat.numel() <= _SMALL or not flat.dim():
        return tuple(digest_tensors([("", flat)]).values())
    some = tuple(digest_tensors([("", flat[:: max(1, len(flat) // _PLACES)])]).values())
    return some, _version_of(flat)


def _version_of(value: Any) -> int:
    """Return what torch counts up with each change in place, wherever in a tensor that is; 0 for anything else."""
    if isinstance(value, torch.Tensor):
        with contextlib.suppress(RuntimeError):  # one that was made under inference_mode
            return value._version
    return 0


def take_fingerprints(
    things: Mapping[str, Mapping[str, Any]], known: Collection[int], *, meters: bool = True
) -> Fingerprints:
    """Return the fingerprints of attributes as they are now.

    Args:
        things: attributes by their names, by the name of the object that has them.
        known: ids of what is carried elsewhere, or is no state: it isn't looked at.
        meters: look at libraries' meters and at random generators. In data, a library's transforms look like meters,
            and keep what they did last; generators come back with the place in the data.
    """
    found: Fingerprints = {}
    for owner, attributes in things.items():
        for name, value in attributes.items():
            try:
                seen = fingerprint(value, known, DEPTH, meters=meters)
            except Exception:  # an object that can't be looked at may have moved
                seen = ("unreadable", object())
            if seen is not None:
                found[f"{owner}.{name}"] = seen
    return found


def moved(then: Fingerprints, now: Fingerprints) -> list[str]:
    """Return the paths that hold something else than then, or that are new. Pure."""
    return [path for path, seen in now.items() if then.get(path) != seen]


def fingerprint(value: Any, known: Collection[int], depth: int, *, meters: bool = True) -> Any:
    """Return something that is equal as long as a value is; None for what isn't looked at. As ``take_fingerprints``."""
    if id(value) in known or (depth < _DEEPEST and type(value) not in CONTAINERS):
        return None
    if depth < 0 and type(value) in CONTAINERS:
        with contextlib.suppress(ValueError):  # of what isn't plain throughout
            return hash(marshal.dumps(value, 2))
        if depth < _DEEPEST:
            return None
    if isinstance(value, Enum):
        return ("enum", value)
    if isinstance(value, PLAIN):
        return (type(value).__name__, value) if value is not None else ("none",)
    if is_iterator(value):  # whoever keeps one draws from it
        return ("iterator", object())
    if isinstance(value, weakref.ref):
        return fingerprint(value(), known, depth, meters=meters)
    if is_drawing_cache(value):
        return ("cache", value.cache_info().misses)
    if isinstance(value, torch.Tensor):
        return fingerprint_tensor(value)
    if isinstance(value, numpy.ndarray):
        return _of_array(value, known, depth, meters)
    if isinstance(value, BUFFERS):
        return (len(value), hash(bytes(value[:: max(1, len(value) // _MANY)])))
    if isinstance(value, GENERATORS):
        return ("generator", generator_fingerprint(value)) if meters else None
    if isinstance(value, EXACT):
        return (type(value).__name__, str(value))
    if (defined := name_of_definition(value)) is not None:
        return ("defined", defined)
    if isinstance(value, functools.partial):
        parts = [value.func, list(value.args), dict(value.keywords)]
        return ("partial", _of_items(parts, known, depth, meters))
    if is_shared(value):
        return ("shared", repr(shared_content(value)))
    if (table := _of_table(value)) is not None:
        return table
    if isinstance(value, torch.nn.Module):
        every = [*value.parameters(), *value.buffers()]
        if any(id(one) in known for one in every):  # the model itself, or around it
            return None
        return tuple(map(fingerprint_tensor, every)), _of_beside(value, known, depth, meters)
    if isinstance(value, torch.optim.Optimizer) and not lacks_groups(value):
        states, groups = getattr(value, "state", {}).values(), getattr(value, "param_groups", ())
        every = [one for state in states for one in (state.values() if isinstance(state, dict) else [state])]
        rates = [one for group in groups for name, one in group.items() if name != "params"]
        return _of_items([*every, *rates], known, depth, meters), _of_beside(value, known, depth, meters)
    if isinstance(value, dict):
        return _of_mapping(value, known, depth, meters)
    if isinstance(value, (list, tuple, deque)):
        return _of_items(value, known, depth, meters)
    if isinstance(value, (set, frozenset)):
        return ("set", len(value), hash(frozenset(value)))
    if has_attributes(value) and (meters or not is_meter(value)):
        return _of_attributes(attributes_of(value), {*known, id(value)}, depth, meters)
    if knows_its_state(value):
        with contextlib.suppress(Exception):  # a library's object that isn't ready for that
            return fingerprint(value.state_dict(), known, depth, meters=meters)
    return None


def _of_array(value: Any, known: Collection[int], depth: int, meters: bool) -> Any:
    if value.dtype.kind in "OV":
        return _of_items(list(value.flat), known, depth, meters) if value.dtype.kind == "O" else None
    plain = numpy.ascontiguousarray(
        value if value.nbytes <= _WHOLE else value[:: max(1, len(value) // _PLACES)]
    )
    return (str(value.dtype), value.shape, hash(plain.tobytes()))


def _of_table(value: Any) -> Any:
    """Return what is seen of a table of pandas; None for anything else."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, (pandas.DataFrame, pandas.Series)):
        return None
    if value.size > _MANY:
        return ("table", value.shape)
    return ("table", value.shape, hash(pandas.util.hash_pandas_object(value).to_numpy().tobytes()))


def _of_beside(value: Any, known: Collection[int], depth: int, meters: bool) -> Any:
    beside = beside_state(value)
    return _of_attributes(beside, {*known, id(value)}, depth, meters) if beside else None


def _of_items(items: Any, known: Collection[int], depth: int, meters: bool) -> Any:
    length = len(items)
    if _PLACES < length <= _MANY and all(type(one) in PLAIN for one in items):
        return (length, hash(tuple(items)))
    step = max(1, length // _PLACES)
    seen = tuple(
        fingerprint(items[place], known, depth - 1, meters=meters)
        for place in (*range(0, length, step), *range(length)[-1:])
    )
    if length and all(one is None for one in seen):
        return None
    return (length, seen, _of_all(items)) if length > _PLACES else (length, seen)


def _of_all(items: Collection[Any]) -> int:
    """Return what is seen of many values at a glance: which they are, and what changes with each of them."""
    if len(items) > _MANY:
        return 0
    seen = [
        one if type(one) in PLAIN else (id(one), len(one) if type(one) in CONTAINERS else _version_of(one))
        for one in items
    ]
    if len(items) <= _FEW:
        short = [one for one in items if type(one) in CONTAINERS and len(one) <= _PLACES]
        with contextlib.suppress(ValueError):  # of what isn't plain throughout
            seen.append(marshal.dumps(short, 2))
    return hash(tuple(seen))


def seen_name(name: str) -> str:
    """Return an attribute's name, or the dotted one of a module's within another, as ``_of_attributes`` has it."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 :]}"


def _of_attributes(attributes: Mapping[str, Any], known: Collection[int], depth: int, meters: bool) -> Any:
    """Return what is seen of each, by its name, however many there are: a save keeps those alone that have moved."""
    every = list(attributes.items())  # its own thread may add to it
    seen = tuple((seen_name(name), fingerprint(one, known, depth - 1, meters=meters)) for name, one in every)
    return None if every and all(one is None for _, one in seen) else (len(every), seen)


def _of_mapping(items: Mapping[Any, Any], known: Collection[int], depth: int, meters: bool) -> Any:
    length = len(items)
    step = max(1, length // _PLACES)
    every = list(items.items())  # its own thread may add to it
    if _PLACES < length <= _MANY and all(type(one) in PLAIN for _, one in every):
        return (length, hash(tuple(every)))
    looked = [*every[::step], *every[-1:]]
    seen = tuple(
        (str(key)[:64], fingerprint(value, known, depth - 1, meters=meters)) for key, value in looked
    )
    if length and all(one is None for _, one in seen):
        return None
    return (length, (*seen, ("", _of_all(dict(every).values())))) if length > _PLACES else (length, seen)
