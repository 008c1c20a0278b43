"""Values of a script's own as something that a file holds; put_values.py makes them of it again.

A history, a counter, an average of the weights, a queue: whatever consists of numbers, text, bytes, tensors and arrays,
lists, dictionaries and sets of these, members of an enumeration by their names, modules, optimizers and a library's
objects by their ``state_dict``, and objects of the script's own classes and libraries' meters by their attributes.
A text that looks like a secret isn't kept: a callback may have logged in somewhere. The reading of a clock is one of
another process at a resume, so what comes back is what that clock shows then.

What is kept is what ``torch.load(weights_only=True)`` reads: a pair of a kind and its content.

loops/carried_values.py keeps pairs, too, of other kinds and contents. One format for both would be more code than two:
files with either are there and have to be read, so its ``put_variable`` would stay as it is beside the kinds here. And
what goes in is decided otherwise: there the script names each variable, so whatever can be pickled is kept, of any
size, secrets too, and a tensor with its device and its gradient. Here nobody has named anything.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy
import torch

from vaultlayer_hf.base.secrets import is_secret
from vaultlayer_hf.state.fingerprints import DEPTH, fingerprint, seen_name
from vaultlayer_hf.state.generator_states import GENERATORS, state_of
from vaultlayer_hf.state.object_kinds import (
    BUFFERS,
    EXACT,
    NO_STATE,
    attributes_of,
    beside_state,
    definition_of,
    has_attributes,
    is_shared,
    knows_its_state,
    lacks_groups,
    name_of_definition,
    shared_content,
)

Kept = tuple[Any, ...]
LIMIT = 64 * 2**20
"""Bytes that are kept of one training's objects at most: they are written while the training waits."""
_EACH = 64
"""Bytes that a number or a short text counts."""
_TEXT = 1 << 16
"""Bytes in which a secret is looked for."""
_PLAIN = (bool, int, float, str, type(None))
ROWS: dict[str, Any] = {one.__name__: one for one in (list, tuple, set, frozenset, deque)}
_STATE = (
    *_PLAIN, *EXACT, *GENERATORS, *ROWS.values(), dict, bytes, *BUFFERS, Enum, torch.Tensor, numpy.ndarray,
    numpy.generic, torch.nn.Module, torch.optim.Optimizer,
)  # fmt: skip
"""What is state of an object's own wherever one of its attributes holds it."""
FACTORIES: dict[str, Any] = {one.__name__: one for one in (int, float, str, bool, list, dict, set, deque)}
"""What a ``defaultdict`` that training makes can be made again with."""
_SAME: Kept = ("same", None)
_DAY = 86400.0
_STARTED = time.monotonic()
_DEPTH = 16
"""Levels of objects within objects that are kept."""


class UnkeptError(Exception):
    """A value holds what can't be kept, or too much."""


class Room:
    """What is left of the bytes that may be kept.

    Args:
        size: in bytes.
        clocks: names of the attributes that may hold the reading of a clock; None: any may. A sum of losses may well
            be a number that such a clock has shown, too.
    """

    def __init__(self, size: int = LIMIT, clocks: Collection[str] | None = None) -> None:
        self.left, self.clocks = size, clocks

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
    clock = clock_of(value) if room.clocks is None or name in room.clocks else None
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
        first: its fingerprint at the begin: of an object those attributes are kept which have changed since, as the
            others are the script's to choose.
    """
    if depth < 0 or (isinstance(value, str) and is_secret(value, name)):
        raise UnkeptError
    if type(value) in _PLAIN:
        room.take(_EACH + (len(value) if isinstance(value, str) else 0))
        return ("plain", value)
    if id(value) in known:
        return _SAME
    if isinstance(value, weakref.ref):
        return ("referent", take_value(value(), room, known, depth - 1, name=name, first=first))
    if isinstance(value, torch.Tensor):
        room.take(value.nbytes)
        return ("tensor", value.detach())
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.kind not in "biuf":
            raise UnkeptError
        room.take(value.nbytes)
        kind = "array" if isinstance(value, numpy.ndarray) else "scalar"
        return (kind, torch.from_numpy(numpy.array(value, copy=True)))
    if isinstance(value, (bytes, *BUFFERS)):
        return ("bytes", _take_bytes(value, room, name))
    if isinstance(value, torch.nn.Module) and any(id(one) in known for one in value.parameters()):
        return _SAME  # the model itself, or around it
    if isinstance(value, GENERATORS):
        return _take_generator(value, room)
    if isinstance(value, EXACT):
        return _take_exact(value, room)
    if (defined := name_of_definition(value)) is not None:
        if definition_of(defined) is not value:
            raise UnkeptError
        return ("defined", defined)
    if isinstance(value, functools.partial):
        parts = [value.func, list(value.args), dict(value.keywords)]
        return ("partial", [take_value(one, room, known, depth - 1) for one in parts])
    if is_shared(value):
        return ("shared", take_value(shared_content(value), room, known, depth - 1))
    if isinstance(value, Enum):
        return ("enum", (type(value).__module__, type(value).__qualname__, value.name))
    stateful = isinstance(value, (torch.nn.Module, torch.optim.Optimizer)) and not lacks_groups(value)
    if stateful or (knows_its_state(value) and not has_attributes(value)):
        return _take_state(value, room, {*known, id(value)}, depth, first)
    if type(value) is deque and value.maxlen is not None:
        return ("ring", (value.maxlen, [take_value(one, room, known, depth - 1) for one in list(value)]))
    if type(value) in ROWS.values():
        return (type(value).__name__, [take_value(one, room, known, depth - 1) for one in list(value)])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ("fields", [take_value(one, room, known, depth - 1) for one in value])
    if isinstance(value, dict):
        items = list(value.items())  # its own thread may add to it
        kept = [(_key(key), take_value(one, room, known, depth - 1, name=str(key))) for key, one in items]
        return (_kind_of_mapping(value), kept)
    if has_attributes(value):
        return ("object", _take_attributes(attributes_of(value), room, {*known, id(value)}, depth, first))
    raise UnkeptError


def _kind_of_mapping(value: Any) -> str:
    """Return which mapping is to be made where there is none at a resume: by ``put_values.py``'s names."""
    if isinstance(value, Counter):
        return "counter"
    if isinstance(value, defaultdict):
        made_by = value.default_factory
        names = [name for name, one in FACTORIES.items() if one is made_by]
        return f"defaultdict {names[0]}" if names else "mapping"
    return {dict: "dict", OrderedDict: "ordered"}.get(type(value), "mapping")


def _take_generator(value: Any, room: Room) -> Kept:
    state = state_of(value)
    if state is None:
        raise UnkeptError
    room.take(_EACH + (state[1].nbytes if isinstance(state[1], torch.Tensor) else len(state[1])))
    return ("generator", state)


def _take_exact(value: Any, room: Room) -> Kept:
    room.take(_EACH)
    if isinstance(value, timedelta):
        return ("timedelta", (value.days, value.seconds, value.microseconds))
    if isinstance(value, datetime):
        now = datetime.now(value.tzinfo)
        recent = now - timedelta(days=30) < value <= now
        return ("clock", f"datetime {value.isoformat()}") if recent else ("datetime", value.isoformat())
    kinds = {Decimal: "Decimal", Fraction: "Fraction", date: "date"}
    return (kinds.get(type(value), "path"), str(value))


def _take_bytes(value: Any, room: Room, name: str) -> tuple[str, str, int, torch.Tensor]:
    """Return what is kept of bytes: their kind, an array's code, the size of each of its numbers, themselves."""
    code, size = getattr(value, "typecode", ""), getattr(value, "itemsize", 1)
    if is_secret(bytes(value[:_TEXT]).decode("latin-1"), name):
        raise UnkeptError
    room.take(_EACH + len(value) * size)
    kind = "array" if code else "bytearray" if isinstance(value, bytearray) else "bytes"
    return kind, code, size, torch.tensor(numpy.frombuffer(bytes(value), numpy.uint8))


def _take_state(value: Any, room: Room, known: Collection[int], depth: int, first: Any) -> Kept:
    """Return what an object tells of its state, and what a script's own class of modules or optimizers adds to it."""
    told = dict(value.state_dict())
    torchs = torch.optim.Optimizer.load_state_dict
    if "param_groups" not in told and getattr(type(value), "load_state_dict", None) is torchs:
        raise UnkeptError  # it couldn't be loaded
    kept = ("state", take_value(told, room, (), depth))
    beside = beside_state(value) if isinstance(value, (torch.nn.Module, torch.optim.Optimizer)) else {}
    of_beside = first[1] if isinstance(first, tuple) and len(first) == 2 else None
    more = _take_attributes(beside, room, known, depth, of_beside)
    return ("state and more", (kept, more)) if more else kept


def _take_attributes(
    attributes: Mapping[str, Any], room: Room, known: Collection[int], depth: int, first: Any
) -> dict[str, Kept]:
    """Return what is kept of an object's attributes; ``first``: what was seen of them at the begin."""
    looked_at = isinstance(first, tuple) and len(first) == 2
    count, before = (first[0], dict(first[1] or ())) if looked_at else (-1, {})
    level, found = DEPTH - 1 - (_DEPTH - depth), {}
    for name, one in attributes.items():
        seen = seen_name(name)
        then = before.get(seen)
        if seen in before and fingerprint(one, known, level) == then:
            continue
        if _is_kept(one):
            found[name] = take_attribute(one, room, known, depth - 1, name=name, first=then)
        elif name_of_definition(one) is not None or isinstance(one, functools.partial):
            try:
                found[name] = take_value(one, room, known, depth - 1)
            except UnkeptError:
                if then is not None and then != ("none",):
                    raise
        elif (then is not None or (seen not in before and count == len(before))) and has_come(one, known):
            raise UnkeptError
    return found


def _is_kept(value: Any) -> bool:
    """Tell whether an attribute of an object is state of its own, and not another library's object."""
    return isinstance(value, _STATE) or has_attributes(value) or knows_its_state(value) or is_shared(value)


def _key(key: Any) -> Any:
    if type(key) in _PLAIN or (type(key) is tuple and all(type(one) in _PLAIN for one in key)):
        return key
    raise UnkeptError
