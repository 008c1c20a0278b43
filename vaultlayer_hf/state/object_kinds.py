"""Whose an object is that a script's own object holds, and what makes up its state: nothing is called that is its own.

A class is the script's own, or a library's. Of the script's own objects the attributes are the state, and so they are
of a library's meter, which consists of nothing but numbers, text and the like; modules, optimizers and many objects of
libraries tell their state themselves. What is neither may hold state that nobody sees.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import inspect
import io
import logging
import sys
import sysconfig
import threading
from argparse import Namespace
from array import array
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.assigned_names import attributes_assigned
from vaultlayer_hf.state.generator_states import GENERATORS

OURS = "vaultlayer_hf"
EXACT = (Decimal, Fraction, datetime.date, datetime.timedelta, PurePath)
"""What is told by its text, and never changes itself. A ``datetime.datetime`` is a date, too."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
BUFFERS = (bytearray, array)
"""Rows of numbers that are none of numpy's or torch's."""
NO_STATE = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)
"""What a script holds and never changes."""
_OF_A_METER = (*PLAIN, *EXACT, *CONTAINERS, *BUFFERS, torch.Tensor, numpy.ndarray, numpy.generic)
_INERT = (*NO_STATE, Enum, torch.dtype, torch.device, logging.Logger)
"""What a meter may hold besides, and is no part of its state."""
_DEEP = 3
"""Meters within meters, at most."""
_OUTSIDE = ("__enter__", "close", "write")
"""Methods of what stands for something outside this process: a bar on a screen, a file, a client, a profile."""
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
_NO_METERS = (OURS, "builtins", "clearml", "comet_ml", "mlflow", "torch", "wandb", *_NO_STATE_OF_ITS_OWN)
"""Packages whose other objects are no state of a script's: a tracker's, or what torch keeps for itself."""
_KNOWN = {*sys.stdlib_module_names, *_NO_METERS}
"""Packages whose objects hide no state of a training: clocks, threads, paths."""
OF_EACH_MODULE = frozenset(vars(torch.nn.Module()))
"""What torch keeps in a module."""
_DRAWING = {
    "bernoulli", "choice", "choices", "default_rng", "gauss", "integers", "multinomial", "normal", "normalvariate",
    "permutation", "rand", "randint", "randn", "random", "randperm", "randrange", "sample", "shuffle",
    "standard_normal", "uniform",
}  # fmt: skip
"""Names of functions that draw random numbers, in Python, numpy and torch."""
_HEAP_TYPE = 1 << 9
"""Flag of a class that Python code has made (CPython's object.h): the others keep what they hold in C."""


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
    cls: type = type(thing)
    known = _assigned_by_libraries(cls)
    return {name: value for name, value in list(vars(thing).items()) if name not in known}


@functools.cache  # of every module at every save
def _assigned_by_libraries(cls: type) -> frozenset[str]:
    """Return the names of attributes that the methods of a class assign, but for those of the script's own classes."""
    return frozenset().union(*(_assigned(one) for one in cls.__mro__ if not is_of_script(one)))


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
    """Tell whether a value is an object that its attributes make up: one of the script's own, or a library's meter."""
    if isinstance(value, (type, Enum, *PLAIN)):
        return False
    cls = type(value)
    if issubclass(cls, (SimpleNamespace, Namespace, threading.local)):
        return True
    if not is_of_script(cls):
        return is_meter(value)
    return hasattr(value, "__dict__") or any(map(_slots, cls.__mro__))


def is_meter(value: Any, depth: int = _DEEP) -> bool:
    """Tell whether a library's object consists of numbers, text, tensors and containers, as a running mean does.

    It has no ``state_dict``, nothing of it is hidden in C, and it stands for nothing outside this process.
    """
    cls = type(value)
    if depth < 0 or is_of_script(cls) or _package(cls) in _NO_METERS:
        return False
    if is_outside(value) or knows_its_state(value):
        return False
    hidden = any(not one.__flags__ & _HEAP_TYPE for one in cls.__mro__ if one is not object)
    if hidden or isinstance(value, (*_INERT, *GENERATORS)):
        return False
    found = [one for one in getattr(value, "__dict__", {}).values() if not isinstance(one, _INERT)]
    return bool(found) and all(
        isinstance(one, _OF_A_METER) or is_of_script(type(one)) or is_meter(one, depth - 1) for one in found
    )


def is_outside(value: Any) -> bool:
    """Tell whether an object stands for something outside this process, which is no state of the training."""
    return any(hasattr(type(value), name) for name in _OUTSIDE)


def may_hide_state(value: Any) -> bool:
    """Tell whether a value is a library's object of which nothing is known but which one it is: a table, an index.

    It can be referred to weakly.
    """
    cls = type(value)
    if not cls.__weakrefoffset__ or has_attributes(value) or knows_its_state(value):
        return False
    if isinstance(value, (*_OF_A_METER, *_INERT, *GENERATORS)) or is_outside(value) or is_of_script(cls):
        return False
    return _package(cls) not in _KNOWN


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def beside_state(value: Any) -> dict[str, Any]:
    """Return what the ``state_dict`` of a module, or an optimizer, leaves out: attributes of the script's own class.

    Those of modules within it, too, by dotted names, buffers that aren't saved, and the numbers of a library's module,
    such as a loss's ``label_smoothing``.
    """
    if not isinstance(value, torch.nn.Module):
        return own_attributes(value) if is_of_script(type(value)) else {}
    found: dict[str, Any] = {}
    for path, module in value.named_modules():
        own = own_attributes(module) if is_of_script(type(module)) else _numbers_of(module)
        buffers = {name: module._buffers[name] for name in sorted(module._non_persistent_buffers_set)}
        for name, one in (own | buffers).items():
            if name not in OF_EACH_MODULE and one is not None:
                found[f"{path}.{name}" if path else name] = one
    return found


def _numbers_of(module: torch.nn.Module) -> dict[str, bool | int | float]:
    return {
        name: value
        for name, value in list(vars(module).items())
        if isinstance(value, (bool, int, float)) and not name.startswith("_")
    }


def lacks_groups(value: Any) -> bool:
    """Tell whether a value is an optimizer without ``param_groups`` that has torch's own ``state_dict``."""
    own = torch.optim.Optimizer
    return (
        isinstance(value, own)
        and not hasattr(value, "param_groups")
        and type(value).state_dict is own.state_dict
    )


def knows_its_state(value: Any) -> bool:
    """Tell whether a library's object gives and takes its state: an average of weights, a schedule, a scaler."""
    cls = type(value)
    both = callable(getattr(cls, "state_dict", None)) and callable(getattr(cls, "load_state_dict", None))
    data = cls.__module__.startswith("torch.utils.data")
    return both and not (data or _package(cls) in _NO_STATE_OF_ITS_OWN)


def is_shared(value: Any) -> bool:
    """Tell whether a value is a number, or a row of these, that processes share: of ``multiprocessing``."""
    cls = type(value)
    return cls.__module__ == "multiprocessing.sharedctypes" and hasattr(cls, "get_lock")


def shared_content(value: Any) -> Any:
    """Return the number, or the list of numbers, that ``is_shared`` is true of; None where it is neither."""
    with contextlib.suppress(Exception):
        found = value[:] if hasattr(value, "__getitem__") else value.value
        return found if isinstance(found, (bool, int, float, list)) else None
    return None


def name_of_definition(value: Any) -> tuple[str, str] | None:
    """Return the module and the name in it by which a function or a class was defined; None for what is neither."""
    if isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType)):
        return str(value.__module__), str(value.__qualname__)
    return None


def definition_of(name: tuple[str, str]) -> Any:
    """Return the function or class of this name; None where it can't be had by its name, as one within a function."""
    found: Any = sys.modules.get(name[0])
    for part in name[1].split("."):
        found = getattr(found, part, None)
    return found


def is_iterator(value: Any) -> bool:
    """Tell whether a value is an iterator, whose place nothing tells: a cycle, a generator, a pass of a loader."""
    return isinstance(value, Iterator) and not isinstance(value, io.IOBase) and not is_of_script(type(value))


def is_drawing_cache(value: Any) -> bool:
    """Tell whether a value is a function that remembers what it has returned, and draws that: an ``lru_cache``.

    Nothing tells what it remembers. Where it draws nothing it returns the same once more.
    """
    if not isinstance(value, functools._lru_cache_wrapper):
        return False
    code = getattr(inspect.unwrap(value), "__code__", None)
    return code is not None and not _DRAWING.isdisjoint(code.co_names)
