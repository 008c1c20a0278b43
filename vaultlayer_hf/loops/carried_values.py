"""What a loop's variables hold as what its file keeps, and back: values as they are, objects by state or attributes.

The script names each variable itself, so whatever can be pickled is kept, and tensors come back to their device. What
a script's own objects are found to hold has a format of its own: state/take_values.py says why.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Container
from enum import Enum
from typing import Any

import torch

from vaultlayer_hf.loops.made_later import NOT_THERE, pickled_alone
from vaultlayer_hf.loops.placed_tensors import devices_of, put_on
from vaultlayer_hf.state.generator_states import bare_state, is_generator, put_bare_state
from vaultlayer_hf.state.object_files import load_in_place
from vaultlayer_hf.state.object_kinds import attributes_of
from vaultlayer_hf.state.tensor_digests import digest_tensors

_LARGE = 1 << 20
"""Bytes of an attribute from which on it is kept only where it has changed since the script made it."""
_LIBRARIES = ("torch", "numpy", "logging", "io", "_io", "threading", "multiprocessing", "builtins", "tqdm")
"""Packages whose objects are more than their attributes say: only those that know their own state are kept."""
_VALUES = (dict, list, tuple, set, frozenset, deque, str, bytes, int, float, complex, Enum)
"""What is assigned as a value also where a class of it has attributes, as a state_dict()'s OrderedDict does."""
_ABSENT = object()
There = dict[Any, Any]
"""Which objects that stay are within another one, by attribute, place or key: of each what is within that."""
UNKNOWN: There = {"": None}
"""Of a value of which nobody has asked what was there."""


def large_attributes(value: Any) -> dict[str, Any] | None:
    """Return what tells the large attributes of an object from what they become; None for what is no such object."""
    if _knows_its_state(value) or not _has_attributes(value):
        return None
    return {name: _mark(one) for name, one in attributes_of(value).items()}


def objects_there(value: Any, within: set[int]) -> There | None:
    """Return what tells objects that a start has by itself from those that training makes; None for a mere value.

    ``within``: as in ``take_variable``.
    """
    if not _stays(value, within):
        return None
    if id(value) in within or _is_whole(value):
        return {}
    found = {name: objects_there(one, within | {id(value)}) for name, one in _inside(value).items()}
    return {name: one for name, one in found.items() if one is not None}


def take_variable(
    value: Any, name: str, first: Any, left_out: list[str], within: set[int], there: There | None = UNKNOWN
) -> Any:
    """Return (kind, state) of a value; a kind of ``none`` for what can't be kept.

    Args:
        value: of a variable, or within one.
        name: what people know it by.
        first: its ``large_attributes`` as the script has made it.
        left_out: where the names go of what can't be kept.
        within: ids of the objects around it, and of what is saved elsewhere: none of these is kept once more.
        there: its ``objects_there`` as the script has made it.

    Raises what the script's own objects raise.
    """
    if id(value) in within:
        return "none", None
    if there is None and _stays(value, within):
        # Each start has none whose state it could bring back, so it gets this one, where that can be pickled.
        taken = take_variable(value, name, first, left_out, within, UNKNOWN)
        return "made", (taken, *pickled_alone(value, name, left_out, within))
    if isinstance(value, torch.Tensor):
        kept = (value.detach(), str(value.device))
        return ("leaf", (*kept, value.grad)) if value.requires_grad and value.is_leaf else ("tensor", kept)
    if _is_metric(value):
        return "object", {one: ("value", getattr(value, one)) for one in (*value._defaults, "_update_count")}
    if _knows_its_state(value):
        return "state", value.state_dict()
    if is_generator(value):
        return "generator", bare_state(value)
    if _has_attributes(value):
        state = {}
        for attribute, one in attributes_of(value).items():
            before = first.get(attribute) if isinstance(first, dict) else None
            if not _unchanged(one, before):
                path = f"{name}.{attribute}"
                inner = _there_of(there, attribute)
                state[attribute] = take_variable(one, path, None, left_out, within | {id(value)}, inner)
        return "object", state
    if isinstance(value, (list, tuple, dict)) and _holds_what_stays(value, within):
        items = list(value.items()) if isinstance(value, dict) else enumerate(list(value))
        return "items", {
            key: take_variable(one, f"{name}[{key!r}]", None, left_out, within, _there_of(there, key))
            for key, one in items
        }
    try:
        pickle.dumps(value)
    except Exception:
        left_out.append(f"{name} (a {type(value).__name__})")
        return "none", None
    devices = devices_of(value)
    return ("value", value) if set(devices) <= {"cpu"} else ("placed", (value, devices))


def put_variable(saved: Any, now: Any, others: set[int] | None = None) -> Any:
    """Return what a variable is to be: the value that was saved, or the object of now with the state of then.

    Args:
        saved: what ``take_variable`` has returned.
        now: what this start has made.
        others: ids of tensors that are something else's, and stay as they are; those that were filled are added.

    Raises what the script's own objects raise, and what follows where ``now`` is another kind of object.
    """
    others = set() if others is None else others
    kind, state = saved
    if kind == "none":
        return now
    if kind == "made":
        return _made(state, now, others)
    if kind == "tensor":
        tensor, device = state
        return _moved(tensor, device, now)
    if kind == "leaf":
        tensor, device, gradient = state
        return _leaf(tensor, device, gradient, now, others)
    if kind == "placed":
        value, devices = state
        return put_on(value, devices, _again)
    if kind == "value":  # of a tensor: earlier versions
        on = now.device if isinstance(now, torch.Tensor) and isinstance(state, torch.Tensor) else None
        return state.to(on) if on is not None else state
    if (now is None or now is _ABSENT) and (state or kind != "object"):
        raise ValueError(NOT_THERE)
    if kind == "state":
        load_in_place(now, state)
        if hasattr(now, "require_forward_param_sync"):
            # DDP would send rank 0's buffers to all ranks at its next forward(): this is each rank's own state.
            now.require_forward_param_sync = False
    elif kind == "generator":
        put_bare_state(now, state)
    elif kind == "items":
        return _put_items(state, now, others)
    else:
        attributes = attributes_of(now)
        for name, one in state.items():
            again = put_variable(one, attributes.get(name, _ABSENT), others)
            if again is not _ABSENT:
                object.__setattr__(now, name, again)  # also of a frozen dataclass
    return now


def _stays(value: Any, within: Container[int]) -> bool:
    """Tell whether a value is an object that gets its state back in place, or a container that holds one."""
    if isinstance(value, torch.Tensor):
        return False
    holds = isinstance(value, (list, tuple, dict)) and _holds_what_stays(value, within)
    return _is_whole(value) or _has_attributes(value) or holds


def _is_whole(value: Any) -> bool:
    return _is_metric(value) or _knows_its_state(value) or is_generator(value)


def _inside(value: Any) -> dict[Any, Any]:
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, dict) else attributes_of(value)


def _there_of(there: There | None, key: Any) -> There | None:
    if there is UNKNOWN:
        return UNKNOWN
    found: There | None = (there or {}).get(key)
    return found


def _made(state: Any, now: Any, others: set[int]) -> Any:
    """Return what was made behind carry(); a start that has made it by itself keeps its own, with the state of then."""
    taken, alone, value, devices = state
    if _stays(now, ()):
        return put_variable(taken, now, others)
    if not alone:
        raise ValueError(NOT_THERE)
    found = put_on(value, devices, _again)
    if type(now) is type(found) and isinstance(now, (list, dict)):  # others may hold it
        now.clear()
        now.update(found) if isinstance(now, dict) else now.extend(found)
        return now
    return found


def _holds_what_stays(value: Any, within: Container[int]) -> bool:
    inside = list(value.values() if isinstance(value, dict) else value)
    return any(_knows_its_state(one) or is_generator(one) or id(one) in within for one in inside)


def _moved(tensor: torch.Tensor, device: str, now: Any) -> torch.Tensor:
    return tensor.to(now.device if isinstance(now, torch.Tensor) else _there(device))


def _again(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return a tensor of a value that was read, on its device; one that gradients are asked of stays a leaf."""
    moved = tensor.to(_there(device))
    if moved is tensor or not tensor.is_leaf:
        return moved
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(moved.detach(), tensor.requires_grad)
    return moved.detach().requires_grad_(tensor.requires_grad)


def _leaf(
    tensor: torch.Tensor, device: str, gradient: torch.Tensor | None, now: Any, others: set[int]
) -> torch.Tensor:
    """Return a tensor that gradients are asked of, with the one that it had.

    It stays the one of now where that has its shape: the optimizer that trains it holds that one.
    """
    found = _moved(tensor, device, now)
    alike = isinstance(now, torch.Tensor) and (now.shape, now.dtype) == (found.shape, found.dtype)
    if alike and now.is_leaf and id(now) not in others:
        others.add(id(now))
        with torch.no_grad():
            found = now.copy_(found)
    elif isinstance(now, torch.nn.Parameter):
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


def _put_items(state: dict[Any, Any], now: Any, others: set[int]) -> Any:
    """Return a list, tuple or dict with the members of then; those that stay objects stay these. Raises KeyError."""
    there = now if isinstance(now, dict) else dict(enumerate(now))
    found = {key: put_variable(one, there.get(key, _ABSENT), others) for key, one in state.items()}
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


def _mark(value: Any) -> Any:
    """Return what tells a large value from what it becomes; None for a small one, and for what has no bytes."""
    if isinstance(value, torch.Tensor):
        # By its content: torch counts no version of what is written through ``.data`` or numpy. Keeping the tensor
        # itself keeps its place in memory from being another's.
        digest = digest_tensors([("", value)]) if value.nbytes > _LARGE else {}
        return (value, digest) if digest else None
    try:
        data = pickle.dumps(value)
    except Exception:
        return None
    return hashlib.sha256(data).digest() if len(data) > _LARGE else None


def _unchanged(value: Any, first: Any) -> bool:
    if isinstance(first, tuple):
        return value is first[0] and digest_tensors([("", value)]) == first[1]
    return first is not None and not isinstance(value, torch.Tensor) and _mark(value) == first
