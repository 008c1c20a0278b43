"""Tensors within lists, dicts and objects: a checkpoint is read onto the CPU, and they go back to their devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from vaultlayer_hf.state.object_kinds import attributes_of

_DEPTH = 16
"""Containers within containers that are looked into, at most."""


def devices_of(value: Any) -> list[str]:
    """Return the devices of the tensors within a value, in the order of ``put_on``."""
    found: list[str] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(str(tensor.device))
        return tensor

    _each(value, note, {}, _DEPTH)
    return found


def put_on(value: Any, devices: list[str], there: Callable[[torch.Tensor, str], torch.Tensor]) -> Any:
    """Return a value with the tensors within on ``devices``; its lists, dicts and objects stay the same ones.

    ``there`` moves a tensor to a device by its name.
    """
    left = iter(devices)
    return _each(value, lambda tensor: there(tensor, next(left)), {}, _DEPTH)


def _each(
    value: Any, change: Callable[[torch.Tensor], torch.Tensor], seen: dict[int, tuple[Any, Any]], depth: int
) -> Any:
    """Return a value with each tensor within changed, once each; ``seen``: what each was, kept, and has become."""
    if id(value) in seen or not depth:
        return seen.get(id(value), (None, value))[1]
    seen[id(value)] = value, value
    if isinstance(value, torch.Tensor):
        seen[id(value)] = value, change(value)
    elif isinstance(value, tuple):
        found = [_each(one, change, seen, depth - 1) for one in value]
        if any(one is not before for one, before in zip(found, value, strict=True)):
            made = type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
            seen[id(value)] = value, made
    elif isinstance(value, (dict, list, deque)):
        for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if (new := _each(one, change, seen, depth - 1)) is not one:
                value[key] = new
    elif type(value).__module__ != "builtins" and hasattr(value, "__dict__") and not isinstance(value, type):
        for name, one in attributes_of(value).items():
            if (new := _each(one, change, seen, depth - 1)) is not one:
                object.__setattr__(value, name, new)  # also of a frozen dataclass
    return seen[id(value)][1]
