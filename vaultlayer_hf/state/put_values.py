"""Values of a script's own objects, back from what take_values.py has kept of them.

What others may hold a reference to changes in place.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import weakref
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from vaultlayer_hf.state.generator_states import resume_generator
from vaultlayer_hf.state.object_files import load_in_place
from vaultlayer_hf.state.object_kinds import (
    attributes_of,
    beside_state,
    definition_of,
    has_attributes,
    is_shared,
)
from vaultlayer_hf.state.take_values import FACTORIES, ROWS, Kept


def fits(kept: Kept, now: Any) -> bool:
    """Tell whether the objects are there that what was kept goes back into. Pure; KeyError for an unknown kind."""
    kind, content = kept
    return _KINDS[kind].fits(content, now)


def put_value(kept: Kept, now: Any) -> Any:
    """Return what a value is to be: ``now`` changed in place where that can be, else another one.

    ``now``: which ``kept`` fits. Nothing of ``kept`` itself is handed out: it may be put back once more. Raises what
    the script's own objects raise.
    """
    kind, content = kept
    return _KINDS[kind].put(content, now)


# Objects that tell their state, or whose attributes are it ---------------------------------------------


def _put_state(content: Kept, now: Any) -> Any:
    load_in_place(now, put_value(content, None))
    return now


def _fit_state_and_more(content: tuple[Kept, Mapping[str, Kept]], now: Any) -> bool:
    told, more = content
    there = beside_state(now)
    return fits(told, now) and all(fits(one, there.get(name)) for name, one in more.items())


def _put_state_and_more(content: tuple[Kept, Mapping[str, Kept]], now: Any) -> Any:
    """Put back what a module, or an optimizer, tells of its state, and attributes of it and of modules within it."""
    told, more = content
    put_value(told, now)
    there = beside_state(now)
    for name, one in more.items():  # by dotted names
        path, _, attribute = name.rpartition(".")
        value = put_value(one, there.get(name))
        if value is there.get(name):
            continue
        if isinstance(now, torch.nn.Module):  # it has its buffers elsewhere
            setattr(now.get_submodule(path), attribute, value)
        else:
            object.__setattr__(now, name, value)
    return now


def _fit_object(content: Mapping[str, Kept], now: Any) -> bool:
    there = attributes_of(now)
    return has_attributes(now) and all(fits(one, there.get(name)) for name, one in content.items())


def _put_object(content: Mapping[str, Kept], now: Any) -> Any:
    there = attributes_of(now)
    put = setattr if isinstance(now, threading.local) else object.__setattr__  # which the former refuses
    for name, one in content.items():
        put(now, name, put_value(one, there.get(name)))
    return now


# Containers --------------------------------------------------------------------------------------------


def _fit_items(content: list[tuple[Any, Kept]], now: Any) -> bool:
    before = now if isinstance(now, Mapping) else {}
    return all(fits(one, before.get(key)) for key, one in content)


def _put_items(content: list[tuple[Any, Kept]], now: Any, make: Callable[[], Any]) -> Any:
    made = make()
    now = now if isinstance(now, type(made)) else made
    before = dict(now)
    found = {key: put_value(one, before.get(key)) for key, one in content}
    now.clear()
    now.update(found)
    return now


def _fit_row(content: list[Kept], now: Any) -> bool:
    return all(map(fits, content, _as_many(now, len(content))))


def _put_row(kind: str, content: list[Kept], now: Any) -> Any:
    found = list(map(put_value, content, _as_many(now, len(content))))
    if kind == "list" and isinstance(now, list):
        now[:] = found
        return now
    if (kind == "deque" and isinstance(now, deque)) or (kind == "set" and isinstance(now, set)):
        now.clear()
        (now.extend if isinstance(now, deque) else now.update)(found)
        return now
    return ROWS[kind](found)


def _put_ring(content: tuple[int, list[Kept]], now: Any) -> Any:
    longest, values = content
    return _put_row("deque", values, now if isinstance(now, deque) else deque(maxlen=longest))


def _as_many(now: Any, count: int) -> list[Any]:
    before = list(now)[:count] if isinstance(now, (list, tuple, deque)) else []
    return before + [None] * (count - len(before))


# Functions, members, numbers ---------------------------------------------------------------------------


def _put_partial(content: list[Kept], now: Any) -> Any:
    function, arguments, named = (put_value(one, None) for one in content)
    return functools.partial(function, *arguments, **named)


def _member(content: tuple[str, str, str], now: Any) -> Any:
    """Return a member of an enumeration; None where there is none such."""
    module, path, name = content
    found: Any = sys.modules.get(module)
    cls = functools.reduce(lambda at, one: getattr(at, one, None), path.split("."), found)
    cls = type(now) if isinstance(now, Enum) else cls  # one within a function has no name to be found by
    return cls.__members__.get(name) if isinstance(cls, type) and issubclass(cls, Enum) else None


def _clock(name: str) -> Any:
    kind, _, then = name.partition(" ")
    if kind == "datetime":
        return datetime.now(datetime.fromisoformat(then).tzinfo)
    return time.time() if kind == "time" else time.monotonic()


def _put_shared(kept: Kept, now: Any) -> Any:
    content = put_value(kept, None)
    if isinstance(content, list):
        now[:] = content
    else:
        now.value = content
    return now


def _fit_referent(kept: Kept, now: Any) -> bool:
    return isinstance(now, weakref.ref) and now() is not None and fits(kept, now())


def _put_referent(kept: Kept, now: Any) -> Any:
    """Put back what a weak reference refers to: an object that can be referred to so is changed in place."""
    put_value(kept, now())
    return now


def _put_array(content: torch.Tensor, now: Any) -> Any:
    found = content.numpy()
    if isinstance(now, numpy.ndarray) and (now.shape, now.dtype) == (found.shape, found.dtype):
        now[...] = found
        return now
    return found.copy()


def _fit_bytes(content: tuple[str, str, int, torch.Tensor], now: Any) -> bool:
    kind, code, size, _ = content
    return kind != "array" or array(code).itemsize == size


def _put_bytes(content: tuple[str, str, int, torch.Tensor], now: Any) -> Any:
    kind, code, _, numbers = content
    data = numbers.numpy().tobytes()
    if kind == "bytes":
        return data
    found: Any = array(code, data) if kind == "array" else bytearray(data)
    if isinstance(now, type(found)) and getattr(now, "typecode", "") == code:
        now[:] = found
        return now
    return found


def _put_tensor(content: torch.Tensor, now: Any) -> torch.Tensor:
    if not isinstance(now, torch.Tensor):
        return content.clone()
    if (now.shape, now.dtype) != (content.shape, content.dtype):
        return content.to(now.device, copy=True)
    with torch.no_grad():
        now.copy_(content)
    return now


# The kinds ---------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """A kind of values.

    Attributes:
        put: returns the value, from its content and what is there now.
        fits: tells whether it can.
    """

    put: Callable[[Any, Any], Any]
    fits: Callable[[Any, Any], bool] = lambda content, now: True


def _made(make: Callable[[Any], Any]) -> _Kind:
    """Return the kind of values that are made of their content alone."""
    return _Kind(lambda content, now: make(content))


def _mapping(make: Callable[[], Any]) -> _Kind:
    return _Kind(lambda content, now: _put_items(content, now, make), _fit_items)


_KINDS: dict[str, _Kind] = {
    "same": _Kind(lambda content, now: now),
    "plain": _made(lambda content: content),
    "timedelta": _made(lambda content: timedelta(*content)),
    "datetime": _made(datetime.fromisoformat),
    "date": _made(date.fromisoformat),
    "Decimal": _made(Decimal),
    "Fraction": _made(Fraction),
    "path": _made(Path),
    "clock": _made(_clock),
    "tensor": _Kind(_put_tensor),
    "array": _Kind(_put_array),
    "scalar": _made(lambda content: content.numpy()[()]),
    "bytes": _Kind(_put_bytes, _fit_bytes),
    "generator": _Kind(lambda content, now: resume_generator(now, content)),
    "shared": _Kind(_put_shared, lambda content, now: is_shared(now)),
    "referent": _Kind(_put_referent, _fit_referent),
    "enum": _Kind(_member, lambda content, now: _member(content, now) is not None),
    "defined": _Kind(
        lambda content, now: definition_of(content),
        lambda content, now: definition_of(content) is not None,
    ),
    "partial": _Kind(_put_partial, lambda content, now: all(fits(one, None) for one in content)),
    "state": _Kind(_put_state, lambda content, now: hasattr(now, "load_state_dict")),
    "state and more": _Kind(_put_state_and_more, _fit_state_and_more),
    "object": _Kind(_put_object, _fit_object),
    "fields": _Kind(
        lambda content, now: type(now)(*map(put_value, content, now)),
        lambda content, now: (
            len(getattr(now, "_fields", ())) == len(content) and all(map(fits, content, now))
        ),
    ),
    "ring": _Kind(_put_ring, lambda content, now: _fit_row(content[1], now)),
    **{kind: _Kind(functools.partial(_put_row, kind), _fit_row) for kind in ROWS},
    "dict": _mapping(dict),
    "counter": _mapping(Counter),
    "ordered": _mapping(OrderedDict),
    **{
        f"defaultdict {name}": _mapping(functools.partial(defaultdict, factory))
        for name, factory in FACTORIES.items()
    },
    # Of a class that can't be made anew.
    "mapping": _mapping(dict)._replace(
        fits=lambda content, now: isinstance(now, dict) and _fit_items(content, now)
    ),
}
"""By the names that take_values.py gives them."""
