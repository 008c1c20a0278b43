"""Values of a script's own objects as something that is kept in a file, and back in their places.

A history, a counter, an average of the weights, a queue: whatever consists of numbers, text, tensors and arrays, lists,
dictionaries and sets of these, members of an enumeration by their names, modules, optimizers and a library's objects by
their ``state_dict``, and objects of the script's own classes by their attributes. What others may hold a reference to
is changed in place. A text that looks like a secret isn't kept: a callback may have logged in somewhere. The reading of
a clock is one of another process at a resume, so what comes back is what that clock shows then.

What is kept is what ``torch.load(weights_only=True)`` reads: a pair of a kind and its content.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import numpy
import torch

from vaultlayer_hf.base.secrets import is_secret
from vaultlayer_hf.state.attributes import (
    DEPTH,
    GENERATORS,
    NO_STATE,
    attributes_of,
    has_attributes,
    knows_its_state,
    print_value,
)

Kept = tuple[Any, ...]
LIMIT = 64 * 2**20
"""Bytes that are kept of one training's objects at most: they are written while the training waits."""
_EACH = 64
"""Bytes that a number or a short text counts."""
_PLAIN = (bool, int, float, str, type(None))
_ROWS: dict[str, Any] = {one.__name__: one for one in (list, tuple, set, frozenset, deque)}
_SAME: Kept = ("same", None)
_DAY = 86400.0
_STARTED = time.monotonic()
_DEPTH = 6
"""Levels of objects within objects that are kept."""


class UnkeptError(Exception):
    """A value holds what can't be kept, or too much."""


class Room:
    """What is left of the bytes that may be kept."""

    def __init__(self, size: int = LIMIT) -> None:
        self.left = size

    def take(self, size: int) -> None:
        """Use some. Raises UnkeptError where there isn't as much."""
        if size > self.left:
            raise UnkeptError
        self.left -= size


def clock_of(value: Any) -> str | None:
    """Return the name of the function of ``time`` whose reading a number is; None where it is none."""
    if type(value) is not float:
        return None
    now = time.time()
    if now - 30 * _DAY < value <= now:
        return "time"
    steady = _STARTED <= value <= time.monotonic() and not value.is_integer()
    return "monotonic" if steady else None


def has_come(value: Any, known: Collection[int]) -> bool:
    """Tell whether an attribute that the training has set to an object of another library makes its owner unkeepable.

    Such as an open file or a client. A flag beside it that says that the file is open would mislead after a resume, so
    nothing of that owner is kept. Not so for what is ``known`` to be made by each start, or can't hold state.
    """
    return not (id(value) in known or isinstance(value, (*NO_STATE, *GENERATORS)))


def take_attribute(
    value: Any, room: Room, known: Collection[int], depth: int = _DEPTH, *, name: str, first: Any = None
) -> Kept:
    """Return what is kept of an attribute's value, as ``take_value``, which has the arguments."""
    clock = clock_of(value)
    return ("clock", clock) if clock else take_value(value, room, known, depth, name=name, first=first)


def take_value(
    value: Any,
    room: Room,
    known: Collection[int] = (),
    depth: int = _DEPTH,
    *,
    name: str = "",
    first: Any = None,
) -> Kept:
    """Return what is kept of a value. Raises UnkeptError.

    Args:
        value: what a script's own object holds.
        room: how much may be kept.
        known: ids of what is carried elsewhere: it stays what it is.
        depth: how deep values within values are kept.
        name: of the attribute or the key that holds it: a text may be a secret by its name.
        first: what ``look`` saw of it at the begin: of an object those attributes are kept which have changed since,
            as the others are the script's to choose.
    """
    if depth < 0 or (isinstance(value, str) and is_secret(value, name)):
        raise UnkeptError
    if type(value) in _PLAIN:
        room.take(_EACH + (len(value) if isinstance(value, str) else 0))
        return ("plain", value)
    if id(value) in known:
        return _SAME
    if isinstance(value, torch.Tensor):
        room.take(value.nbytes)
        return ("tensor", value.detach())
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.kind not in "biuf":
            raise UnkeptError
        room.take(value.nbytes)
        kind = "array" if isinstance(value, numpy.ndarray) else "scalar"
        return (kind, torch.from_numpy(numpy.array(value, copy=True)))
    if isinstance(value, torch.nn.Module) and any(id(one) in known for one in value.parameters()):
        return _SAME  # the model itself, or around it
    if isinstance(value, Enum):
        return ("enum", (type(value).__module__, type(value).__qualname__, value.name))
    if isinstance(value, (torch.nn.Module, torch.optim.Optimizer)) or (
        knows_its_state(value) and not has_attributes(value)
    ):
        return ("state", take_value(dict(value.state_dict()), room, (), depth))
    if type(value) in _ROWS.values():
        return (type(value).__name__, [take_value(one, room, known, depth - 1) for one in list(value)])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ("fields", [take_value(one, room, known, depth - 1) for one in value])
    if isinstance(value, dict):
        items = list(value.items())  # its own thread may add to it
        return (
            "counter" if isinstance(value, Counter) else "dict",
            [(_key(key), take_value(one, room, known, depth - 1, name=str(key))) for key, one in items],
        )
    if has_attributes(value):
        return ("object", _take_object(value, room, {*known, id(value)}, depth, first))
    raise UnkeptError


def _take_object(value: Any, room: Room, known: Collection[int], depth: int, first: Any) -> dict[str, Kept]:
    looked_at = isinstance(first, tuple) and len(first) == 2
    count, before = (first[0], dict(first[1] or ())) if looked_at else (-1, {})
    level, found = DEPTH - 1 - (_DEPTH - depth), {}
    for name, one in attributes_of(value).items():
        then = before.get(name[:64])
        if name[:64] in before and print_value(one, known, level) == then:
            continue
        if _is_kept(one):
            found[name] = take_attribute(one, room, known, depth - 1, name=name, first=then)
        elif (then is not None or (name[:64] not in before and count == len(before))) and has_come(
            one, known
        ):
            raise UnkeptError
    return found


def _is_kept(value: Any) -> bool:
    """Tell whether an attribute of an object is state of its own, and not another library's object."""
    kinds = (*_PLAIN, *_ROWS.values(), dict, Enum, torch.Tensor, numpy.ndarray, numpy.generic)
    objects = isinstance(value, (*kinds, torch.nn.Module, torch.optim.Optimizer))
    return objects or has_attributes(value) or knows_its_state(value)


def _key(key: Any) -> Any:
    if type(key) in _PLAIN or (type(key) is tuple and all(type(one) in _PLAIN for one in key)):
        return key
    raise UnkeptError


def fits(kept: Kept, now: Any) -> bool:
    """Tell whether the objects are there that what was kept goes back into. Pure."""
    kind, content = kept
    if kind == "state":
        return hasattr(now, "load_state_dict")
    if kind == "object":
        there = attributes_of(now)
        return has_attributes(now) and all(fits(one, there.get(name)) for name, one in content.items())
    if kind == "enum":
        return _member(content, now) is not None
    if kind == "fields":
        return len(getattr(now, "_fields", ())) == len(content) and all(map(fits, content, now))
    if kind in ("dict", "counter"):
        before = now if isinstance(now, Mapping) else {}
        return all(fits(one, before.get(key)) for key, one in content)
    if kind in _ROWS:
        return all(map(fits, content, _as_many(now, len(content))))
    return True


def put_value(kept: Kept, now: Any) -> Any:
    """Return what a value is to be: ``now`` changed in place where that can be, else another one.

    ``now``: which ``kept`` fits. Nothing of ``kept`` itself is handed out: it may be put back once more. Raises what
    the script's own objects raise.
    """
    kind, content = kept
    if kind == "same":
        return now
    if kind == "plain":
        return content
    if kind == "clock":
        return time.time() if content == "time" else time.monotonic()
    if kind == "tensor":
        return _put_tensor(content, now)
    if kind in ("array", "scalar"):
        array = content.numpy()
        if kind == "scalar":
            return array[()]
        if isinstance(now, numpy.ndarray) and (now.shape, now.dtype) == (array.shape, array.dtype):
            now[...] = array
            return now
        return array.copy()
    if kind == "state":
        now.load_state_dict(put_value(content, None))
        return now
    if kind in ("dict", "counter"):
        return _put_items(content, Counter() if kind == "counter" and not isinstance(now, Counter) else now)
    if kind == "enum":
        return _member(content, now)
    if kind == "fields":
        return type(now)(*map(put_value, content, now))
    if kind == "object":
        there = attributes_of(now)
        for name, one in content.items():
            object.__setattr__(now, name, put_value(one, there.get(name)))
        return now
    return _put_row(kind, content, now)


def _put_tensor(content: torch.Tensor, now: Any) -> torch.Tensor:
    if not isinstance(now, torch.Tensor):
        return content.clone()
    if (now.shape, now.dtype) != (content.shape, content.dtype):
        return content.to(now.device, copy=True)
    with torch.no_grad():
        now.copy_(content)
    return now


def _put_items(content: list[tuple[Any, Kept]], now: Any) -> Any:
    before = dict(now) if isinstance(now, Mapping) else {}
    found = {key: put_value(one, before.get(key)) for key, one in content}
    if not isinstance(now, dict):
        return found
    now.clear()
    now.update(found)
    return now


def _member(content: tuple[str, str, str], now: Any) -> Any:
    """Return a member of an enumeration; None where there is none such."""
    module, path, name = content
    found: Any = sys.modules.get(module)
    cls = functools.reduce(lambda at, one: getattr(at, one, None), path.split("."), found)
    cls = type(now) if isinstance(now, Enum) else cls  # one within a function has no name to be found by
    return cls.__members__.get(name) if isinstance(cls, type) and issubclass(cls, Enum) else None


def _put_row(kind: str, content: list[Kept], now: Any) -> Any:
    found = list(map(put_value, content, _as_many(now, len(content))))
    if kind == "list" and isinstance(now, list):
        now[:] = found
        return now
    if (kind == "deque" and isinstance(now, deque)) or (kind == "set" and isinstance(now, set)):
        now.clear()
        (now.extend if isinstance(now, deque) else now.update)(found)
        return now
    return _ROWS[kind](found)


def _as_many(now: Any, count: int) -> list[Any]:
    before = list(now)[:count] if isinstance(now, (list, tuple, deque)) else []
    return before + [None] * (count - len(before))
