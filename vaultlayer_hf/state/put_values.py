"""Values of a script's own objects, back from what take_values.py has kept of them.

What others may hold a reference to changes in place.
"""

from __future__ import annotations

import functools
import sys
import time
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.generator_states import resume_generator
from vaultlayer_hf.state.object_kinds import (
    attributes_of,
    beside_state,
    definition_of,
    has_attributes,
    is_shared,
)
from vaultlayer_hf.state.take_values import FACTORIES, ROWS, Kept

_EXACT: dict[str, Any] = {
    "timedelta": lambda content: timedelta(*content),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "Decimal": Decimal,
    "path": Path,
    "Fraction": Fraction,
}
"""How what is told by its text is made again."""


def fits(kept: Kept, now: Any) -> bool:
    """Tell whether the objects are there that what was kept goes back into. Pure."""
    kind, content = kept
    if kind == "state":
        return hasattr(now, "load_state_dict")
    if kind == "state and more":
        told, more = content
        there = beside_state(now)
        return fits(told, now) and all(fits(one, there.get(name)) for name, one in more.items())
    if kind == "bytes":
        return bool(content[0] != "array" or array(content[1]).itemsize == content[2])
    if kind == "object":
        there = attributes_of(now)
        return has_attributes(now) and all(fits(one, there.get(name)) for name, one in content.items())
    if kind == "enum":
        return _member(content, now) is not None
    if kind == "fields":
        return len(getattr(now, "_fields", ())) == len(content) and all(map(fits, content, now))
    if kind in ("generator", "shared"):
        return kind == "generator" or is_shared(now)
    if kind == "defined":
        return definition_of(content) is not None
    if kind == "partial":
        return all(map(fits, content, (None, None, None)))
    if kind == "mapping" and not isinstance(now, dict):
        return False
    if _is_mapping(kind):
        before = now if isinstance(now, Mapping) else {}
        return all(fits(one, before.get(key)) for key, one in content)
    if kind == "ring":
        return all(map(fits, content[1], _as_many(now, len(content[1]))))
    if kind in ROWS:
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
        return _clock(content)
    if kind in _EXACT:
        return _EXACT[kind](content)
    if kind == "generator":
        return resume_generator(now, content)
    if kind == "defined":
        return definition_of(content)
    if kind == "partial":
        function, arguments, named = (put_value(one, None) for one in content)
        return functools.partial(function, *arguments, **named)
    if kind == "shared":
        return _put_shared(put_value(content, None), now)
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
    if kind == "state and more":
        told, more = content
        put_value(told, now)
        return _put_beside(more, now, beside_state(now))
    if kind == "bytes":
        return _put_bytes(content, now)
    if _is_mapping(kind):
        made = _new_mapping(kind)
        return _put_items(content, now if isinstance(now, type(made)) else made)
    if kind == "ring":
        return _put_row("deque", content[1], now if isinstance(now, deque) else deque(maxlen=content[0]))
    if kind == "enum":
        return _member(content, now)
    if kind == "fields":
        return type(now)(*map(put_value, content, now))
    if kind == "object":
        return _put_attributes(content, now, attributes_of(now))
    return _put_row(kind, content, now)


def _put_attributes(content: Mapping[str, Kept], now: Any, there: Mapping[str, Any]) -> Any:
    for name, one in content.items():
        object.__setattr__(now, name, put_value(one, there.get(name)))
    return now


def _put_beside(content: Mapping[str, Kept], now: Any, there: Mapping[str, Any]) -> Any:
    """Put back attributes of a module, and of those within it, by dotted names, or of an optimizer."""
    for name, one in content.items():
        path, _, attribute = name.rpartition(".")
        value = put_value(one, there.get(name))
        if value is there.get(name):
            continue
        if isinstance(now, torch.nn.Module):  # it has its buffers elsewhere
            setattr(now.get_submodule(path), attribute, value)
        else:
            object.__setattr__(now, name, value)
    return now


def _clock(name: str) -> Any:
    kind, _, then = name.partition(" ")
    if kind == "datetime":
        return datetime.now(datetime.fromisoformat(then).tzinfo)
    return time.time() if kind == "time" else time.monotonic()


def _put_shared(content: Any, now: Any) -> Any:
    if isinstance(content, list):
        now[:] = content
    else:
        now.value = content
    return now


def _is_mapping(kind: str) -> bool:
    return kind in ("dict", "counter", "ordered", "mapping") or kind.startswith("defaultdict")


def _new_mapping(kind: str) -> dict[Any, Any]:
    name, _, made_by = kind.partition(" ")
    if name == "defaultdict":
        return defaultdict(FACTORIES[made_by])
    made: dict[Any, Any] = {"counter": Counter, "ordered": OrderedDict}.get(name, dict)()
    return made


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


def _put_items(content: list[tuple[Any, Kept]], now: Any) -> Any:
    before = dict(now)
    found = {key: put_value(one, before.get(key)) for key, one in content}
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
    return ROWS[kind](found)


def _as_many(now: Any, count: int) -> list[Any]:
    before = list(now)[:count] if isinstance(now, (list, tuple, deque)) else []
    return before + [None] * (count - len(before))
