"""What objects of a script's own keep in their attributes: looked at twice, to tell what training changes.

A callback's average, a trainer's counter, a queue of what was seen: a checkpoint holds none of these. Whether the
training hangs on them can't be told from outside, but whether they move can. Nothing is called that is the script's
own, and of what is large some places are looked at.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import random
import sys
import sysconfig
from argparse import Namespace
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.assigned_names import attributes_assigned
from vaultlayer_hf.state.tensor_digests import digest_tensors

Prints = dict[str, Any]
"""What was seen at each place, by its path, such as ``Average.shadow``: equal where nothing has changed."""
_PLACES = 64
"""Places of a container, and rows of a tensor, that are looked at: its first and last ones, and some between."""
_SMALL, _MANY = 1 << 16, 1 << 20
"""Values of a tensor, and plain ones of a container, up to which all of them are looked at."""
DEPTH = 3
"""How deep objects within objects are looked at."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
GENERATORS = (torch.Generator, random.Random, numpy.random.Generator, numpy.random.RandomState)
"""Random generators whose state can be taken and put back."""
NO_STATE = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)
"""What a script holds and never changes."""
OURS = "vaultlayer_hf"
_NO_STATE_OF_ITS_OWN = (
    "accelerate",
    "datasets",
    "deepspeed",
    "peft",
    "torchdata",
    "transformers",
    "trl",
    "vllm",
)
"""Packages whose objects with a ``state_dict`` are carried elsewhere, such as a place in data, or are an engine."""


def is_of_script(cls: type) -> bool:
    """Tell whether a class is the script's own: neither of an installed package nor of Python nor of ours."""
    name = cls.__module__
    if name.partition(".")[0] in (OURS, "builtins") or name in sys.builtin_module_names:
        return False
    return is_own_file(getattr(sys.modules.get(name), "__file__", None) or "")


@functools.lru_cache(4096)  # of every object at every save, and get_paths() takes 0.2 ms
def is_own_file(file: str) -> bool:
    """Tell whether a file is neither of an installed package nor of Python."""
    installed = any(part in file for part in ("site-packages", "dist-packages"))
    return not installed and not file.startswith(sysconfig.get_paths()["stdlib"])


def own_attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that no library's class of it ever assigns."""
    found = vars(thing)
    known: set[str] = set()
    for cls in type(thing).__mro__:
        if not is_of_script(cls):
            known |= _assigned(cls)
    return {name: value for name, value in list(found.items()) if name not in known}


@functools.cache
def _assigned(cls: type) -> frozenset[str]:
    """Return the names of attributes that the methods of a class assign, also inside their decorators."""
    found: set[str] = set()
    for member in vars(cls).values():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        code = getattr(inspect.unwrap(member) if callable(member) else member, "__code__", None)
        if code is not None:
            found.update(attributes_assigned(code))
    return frozenset(found)


def print_of(tensor: torch.Tensor) -> Any:
    """Return something that is equal as long as a tensor is; of a large one some rows are looked at."""
    flat = tensor.detach()
    if flat.numel() > _SMALL and flat.dim():
        flat = flat[:: max(1, len(flat) // _PLACES)]
    return tuple(digest_tensors([("", flat)]).values())


def look(things: Mapping[str, Mapping[str, Any]], known: Collection[int]) -> Prints:
    """Return what these attributes hold now.

    Args:
        things: attributes by their names, by the name of the object that has them.
        known: ids of what is carried elsewhere, or is no state: it isn't looked at.
    """
    found: Prints = {}
    for owner, attributes in things.items():
        for name, value in attributes.items():
            seen = print_value(value, known, DEPTH)
            if seen is not None:
                found[f"{owner}.{name}"] = seen
    return found


def moved(then: Prints, now: Prints) -> list[str]:
    """Return the paths that hold something else than then, or that are new. Pure."""
    return [path for path, seen in now.items() if then.get(path) != seen]


def attributes_of(value: Any) -> dict[str, Any]:
    """Return an object's attributes, those in ``__slots__`` among them.

    >>> class Point:
    ...     __slots__ = ("x",)
    >>> point = Point()
    >>> point.x = 1
    >>> attributes_of(point)
    {'x': 1}
    """
    slots = [name for cls in type(value).__mro__ for name in _slots(cls) if hasattr(value, name)]
    return {name: getattr(value, name) for name in slots} | dict(getattr(value, "__dict__", {}))


def _slots(cls: type) -> list[str]:
    names = cls.__dict__.get("__slots__", ()) if is_of_script(cls) else ()
    return [one for one in ([names] if isinstance(names, str) else names) if not one.startswith("__")]


def has_attributes(value: Any) -> bool:
    """Tell whether a value is an object of the script's own, which its attributes make up."""
    if isinstance(value, (type, Enum, *_PLAIN)):
        return False
    cls = type(value)
    if issubclass(cls, (SimpleNamespace, Namespace)):
        return True
    return is_of_script(cls) and (hasattr(value, "__dict__") or any(map(_slots, cls.__mro__)))


def knows_its_state(value: Any) -> bool:
    """Tell whether a library's object gives and takes its state: an average of weights, a schedule, a scaler."""
    cls = type(value)
    both = callable(getattr(cls, "state_dict", None)) and callable(getattr(cls, "load_state_dict", None))
    data = cls.__module__.startswith("torch.utils.data")
    return both and not (data or cls.__module__.partition(".")[0] in _NO_STATE_OF_ITS_OWN)


def is_iterator(value: Any) -> bool:
    """Tell whether a value is an iterator, whose place nothing tells: a cycle, a generator, a pass of a loader."""
    return isinstance(value, Iterator) and not isinstance(value, io.IOBase) and not is_of_script(type(value))


def print_value(value: Any, known: Collection[int], depth: int) -> Any:
    """Return something that is equal as long as a value is; None for what isn't looked at."""
    if id(value) in known or depth < 0:
        return None
    if isinstance(value, Enum):
        return ("enum", value)
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value) if value is not None else ("none",)
    if is_iterator(value):  # whoever keeps one draws from it
        return ("iterator", object())
    if isinstance(value, torch.Tensor):
        return print_of(value)
    if isinstance(value, numpy.ndarray):
        return print_of(torch.from_numpy(value)) if value.dtype.kind in "biuf" else None
    if isinstance(value, GENERATORS):  # they come back
        return None
    if isinstance(value, torch.nn.Module):
        every = [*value.parameters(), *value.buffers()]
        if any(id(one) in known for one in every):  # the model itself, or around it
            return None
        return tuple(map(print_of, every))
    if isinstance(value, torch.optim.Optimizer):
        every = [one for state in value.state.values() for one in state.values()]
        rates = [one for group in value.param_groups for name, one in group.items() if name != "params"]
        return _of_items([*every, *rates], known, depth)
    if isinstance(value, dict):
        return _of_mapping(value, known, depth)
    if isinstance(value, (list, tuple, deque)):
        return _of_items(value, known, depth)
    if isinstance(value, (set, frozenset)):
        return ("set", len(value), hash(frozenset(value)))
    if has_attributes(value):
        return _of_mapping(attributes_of(value), {*known, id(value)}, depth)
    if knows_its_state(value):
        with contextlib.suppress(Exception):  # a library's object that isn't ready for that
            return print_value(value.state_dict(), known, depth)
    return None


def _of_items(items: Any, known: Collection[int], depth: int) -> Any:
    length = len(items)
    if _PLACES < length <= _MANY and all(type(one) in _PLAIN for one in items):
        return (length, hash(tuple(items)))
    step = max(1, length // _PLACES)
    seen = tuple(
        print_value(items[place], known, depth - 1)
        for place in (*range(0, length, step), *range(length)[-1:])
    )
    return (length, seen) if not length or any(one is not None for one in seen) else None


def _of_mapping(items: Mapping[Any, Any], known: Collection[int], depth: int) -> Any:
    length = len(items)
    step = max(1, length // _PLACES)
    every = list(items.items())  # its own thread may add to it
    if _PLACES < length <= _MANY and all(type(one) in _PLAIN for _, one in every):
        return (length, hash(tuple(every)))
    looked = [*every[::step], *every[-1:]]
    seen = tuple((str(key)[:64], print_value(value, known, depth - 1)) for key, value in looked)
    return (length, seen) if not length or any(one is not None for _, one in seen) else None
