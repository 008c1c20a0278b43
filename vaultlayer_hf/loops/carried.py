"""Variables that a loop hands on from one round to the next: a learning rate, a counter, a patience, an own loader.

What can be assigned comes back as a value. What others may hold a reference to comes back in place, so that they see
it, too: a random generator, anything with ``state_dict``, an object of a class of the script's own (its attributes).
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import numpy
import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import ResumeError
from vaultlayer_hf.state.generator_states import GENERATORS
from vaultlayer_hf.state.put_values import load_in_place

Variables = Callable[[], dict[str, Any]]
_LARGE = 1 << 20
"""Bytes of an attribute from which on it is kept only where it has changed since the script made it."""
_LIBRARIES = ("torch", "numpy", "logging", "io", "_io", "threading", "multiprocessing", "builtins", "tqdm")
"""Packages whose objects are more than their attributes say: only those that know their own state are kept."""
_VALUES = (dict, list, tuple, set, frozenset, deque, str, bytes, int, float, complex, Enum)
"""What is assigned as a value also where a class of it has attributes, as a state_dict()'s OrderedDict does."""
_ABSENT = object()


class Carried:
    """The variables of one loop that its checkpoints keep.

    Args:
        events: where to say what can't be kept.
        saved: returns what has files of its own in the checkpoint: objects that hold it leave it out.
    """

    def __init__(self, events: Events, saved: Callable[[], Iterable[Any]] = list) -> None:
        self._events, self._elsewhere = events, saved
        self._loop: dict[str, tuple[Variables, dict[str, Any]]] = {}
        self._of_pass: dict[str, tuple[Variables, dict[str, Any]]] = {}
        self._saved: dict[str, Any] = {}

    def carry(self, now: Variables, in_pass: bool) -> tuple[Any, ...]:
        """Keep what ``now()`` returns with each checkpoint; return that of the resumed checkpoint, else that of now.

        ``in_pass``: they belong to the pass through the data that is about to begin, and are forgotten behind it.
        Raises ResumeError for an object that can't take the state that was saved of it.
        """
        found = now()
        kind = self._of_pass if in_pass else self._loop
        kind["\n".join(found)] = (now, {name: _first(value) for name, value in found.items()})
        return tuple(
            self._restored(name, value, self._saved.pop(_key(name, in_pass), None))
            for name, value in found.items()
        )

    @staticmethod
    def _restored(name: str, value: Any, saved: Any) -> Any:
        if saved is None:
            return value
        try:
            return _put(saved, value)
        except Exception as error:  # an object of the script's own: it raises what it likes
            raise ResumeError(f"{name} can't be brought back: {type(error).__name__}: {error}") from error

    def end_pass(self) -> None:
        """Forget what belonged to the pass that is over."""
        self._of_pass.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs."""
        left_out: list[str] = []
        state = dict(self._saved)  # what nobody has asked for yet
        elsewhere = {id(one) for one in self._elsewhere()}
        for in_pass, kind in ((False, self._loop), (True, self._of_pass)):
            for now, first in kind.values():
                for name, value in now().items():
                    state[_key(name, in_pass)] = _take(
                        value, name, first.get(name), left_out, _around(value, elsewhere)
                    )
        if left_out:
            self._events.warn_once(
                "carried",
                EventKind.NOTICE,
                f"a resume doesn't bring back {', '.join(left_out)}: it has no state that can be saved",
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have ``carry`` return what was saved, once each."""
        self._saved = dict(state)


def _around(value: Any, elsewhere: set[int]) -> set[int]:
    """Return what isn't kept once more: a module that is named itself is, for each rank may have one of its own."""
    return elsewhere if isinstance(value, torch.Tensor) else elsewhere - {id(value)}


def _key(name: str, in_pass: bool) -> str:
    return f"pass/{name}" if in_pass else name


def _knows_its_state(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _is_metric(value: Any) -> bool:
    """Tell whether this is a metric of torchmetrics, whose ``state_dict`` leaves out what it has gathered."""
    return isinstance(getattr(value, "_defaults", None), dict) and hasattr(value, "metric_state")


def _has_attributes(value: Any) -> bool:
    if isinstance(value, (type, Exception, *_VALUES)):
        return False
    library = type(value).__module__.partition(".")[0] in _LIBRARIES
    return hasattr(value, "__dict__") and not library


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return an object's attributes as they are now: a thread of its own may add some while they are gone through."""
    return list(vars(value).items())


def _first(value: Any) -> Any:
    """Return how the large attributes of an object are as the script has made it, to see which ones change."""
    if _knows_its_state(value) or not _has_attributes(value):
        return None
    return {name: _print(one) for name, one in _attributes(value)}


def _print(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        # Keeping the tensor itself keeps its place in memory from being another's.
        return (value, value._version) if value.nbytes > _LARGE else None
    try:
        data = pickle.dumps(value)
    except Exception:
        return None
    return hashlib.sha256(data).digest() if len(data) > _LARGE else None


def _unchanged(value: Any, first: Any) -> bool:
    if isinstance(first, tuple):
        return value is first[0] and value._version == first[1]
    return first is not None and not isinstance(value, torch.Tensor) and _print(value) == first


def _take(value: Any, name: str, first: Any, left_out: list[str], within: set[int]) -> Any:
    """Return (kind, state) of a value; a kind of ``none`` for what can't be kept, whose name goes to ``left_out``.

    ``within``: ids of the objects around it, and of what is saved elsewhere: none of these is kept once more.
    """
    if id(value) in within:
        return "none", None
    if isinstance(value, torch.Tensor):
        kept = (value.detach(), str(value.device))
        return ("leaf", (*kept, value.grad)) if value.requires_grad and value.is_leaf else ("tensor", kept)
    if _is_metric(value):
        return "object", {one: ("value", getattr(value, one)) for one in (*value._defaults, "_update_count")}
    if _knows_its_state(value):
        return "state", value.state_dict()
    if isinstance(value, GENERATORS):
        return "generator", _generator_state(value)
    if _has_attributes(value):
        state = {}
        for attribute, one in _attributes(value):
            before = first.get(attribute) if isinstance(first, dict) else None
            if not _unchanged(one, before):
                path = f"{name}.{attribute}"
                state[attribute] = _take(one, path, None, left_out, within | {id(value)})
        return "object", state
    if isinstance(value, (list, tuple, dict)) and _holds_what_stays(value, within):
        items = list(value.items()) if isinstance(value, dict) else enumerate(list(value))
        return "items", {key: _take(one, f"{name}[{key!r}]", None, left_out, within) for key, one in items}
    try:
        pickle.dumps(value)
    except Exception:
        left_out.append(f"{name} (a {type(value).__name__})")
        return "none", None
    return "value", value


def _holds_what_stays(value: Any, within: set[int]) -> bool:
    inside = list(value.values() if isinstance(value, dict) else value)
    return any(_knows_its_state(one) or isinstance(one, GENERATORS) or id(one) in within for one in inside)


def _put(saved: Any, now: Any) -> Any:
    """Return what a variable is to be: the value that was saved, or the object of now with the state of then."""
    kind, state = saved
    if kind == "none":
        return now
    if kind == "tensor":
        tensor, device = state
        return _moved(tensor, device, now)
    if kind == "leaf":
        tensor, device, gradient = state
        return _leaf(tensor, device, gradient, now)
    if kind == "value":  # of a tensor: earlier versions
        on = now.device if isinstance(now, torch.Tensor) and isinstance(state, torch.Tensor) else None
        return state.to(on) if on is not None else state
    if kind == "state":
        load_in_place(now, state)
        if hasattr(now, "require_forward_param_sync"):
            # DDP would send rank 0's buffers to all ranks at its next forward(): this is each rank's own state.
            now.require_forward_param_sync = False
    elif kind == "generator":
        _put_generator(now, state)
    elif kind == "items":
        return _put_items(state, now)
    else:
        attributes = vars(now)
        for name, one in state.items():
            again = _put(one, attributes.get(name, _ABSENT))
            if again is not _ABSENT:
                object.__setattr__(now, name, again)  # also of a frozen dataclass
    return now


def _moved(tensor: torch.Tensor, device: str, now: Any) -> torch.Tensor:
    return tensor.to(now.device if isinstance(now, torch.Tensor) else _there(device))


def _leaf(tensor: torch.Tensor, device: str, gradient: torch.Tensor | None, now: Any) -> torch.Tensor:
    """Return a tensor that gradients are asked of, with the one that it had."""
    found = _moved(tensor, device, now)
    if isinstance(now, torch.nn.Parameter):
        found = torch.nn.Parameter(found)
    found.requires_grad_()
    found.grad = None if gradient is None else gradient.to(found.device)
    return found


def _there(device: str) -> torch.device:
    """Return a device by the name that it had at the save; the CPU where this machine has none of the name."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return torch.device("cpu")
    return torch.device(device)


def _put_items(state: dict[Any, Any], now: Any) -> Any:
    """Return a list, tuple or dict with the members of then; those that stay objects stay these. Raises KeyError."""
    there = now if isinstance(now, dict) else dict(enumerate(now))
    found = {key: _put(one, there.get(key, _ABSENT)) for key, one in state.items()}
    gone = [key for key, one in found.items() if one is _ABSENT]
    if gone:
        raise KeyError(f"{gone[0]!r} isn't in it yet")
    if isinstance(now, dict):
        for key in [key for key in now if key not in found]:
            del now[key]
        now.update(found)
    elif isinstance(now, list):
        now[:] = found.values()
    elif any(found[key] is not one for key, one in there.items()):
        return type(now)(*found.values()) if hasattr(now, "_fields") else type(now)(found.values())
    return now


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, numpy.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _put_generator(now: Any, state: Any) -> None:
    if isinstance(now, numpy.random.Generator):
        now.bit_generator.state = state
    elif isinstance(now, random.Random):
        now.setstate(state)
    else:
        now.set_state(state)
