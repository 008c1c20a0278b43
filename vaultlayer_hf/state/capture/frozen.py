"""A state dict as it is now, to be pickled later: its containers are copied, its tensors stand for the same storages.

To pickle the state of an optimizer takes some 30 microseconds a tensor on the interpreter, ten times as long as this.
Only what pickles the same then is frozen: builtin containers, plain tensors, numbers, text. Whatever is the same object
in two places stays so, since a pickle says it once.
"""

from __future__ import annotations

from typing import Any

import torch

_LEAVES = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


class UnknownError(Exception):
    """There is something in it that may change, or pickle in a way of its own."""


def freeze(value: Any) -> tuple[Any, list[torch.UntypedStorage]]:
    """Return what pickles later as a value does now, and the storages of its tensors. Raises UnknownError.

    >>> rates = [0.1]
    >>> frozen, _ = freeze({"rates": rates})
    >>> rates.append(0.2)
    >>> frozen
    {'rates': [0.1]}
    """
    found: dict[int, Any] = {}
    storages: list[torch.UntypedStorage] = []
    return _frozen(value, found, storages), storages


def _frozen(value: Any, found: dict[int, Any], storages: list[torch.UntypedStorage]) -> Any:
    kind = type(value)
    if kind in _LEAVES:
        return value
    if id(value) in found:
        return found[id(value)]
    made: Any
    if kind is torch.Tensor:
        made = _alias(value)
        storages.append(made.untyped_storage())
    elif kind is dict:
        made = found[id(value)] = {}
        for key, one in value.items():
            if type(key) not in _LEAVES:
                raise UnknownError(type(key).__name__)
            made[key] = _frozen(one, found, storages)
    elif kind is list:
        made = found[id(value)] = []
        made.extend(_frozen(one, found, storages) for one in value)
    elif kind is tuple:
        made = tuple(_frozen(one, found, storages) for one in value)
        if all(one is other for one, other in zip(made, value, strict=True)):
            made = value
    else:
        raise UnknownError(kind.__name__)
    found[id(value)] = made
    return made


def _alias(tensor: torch.Tensor) -> torch.Tensor:
    """Return another tensor of the same content, which nobody else can point elsewhere."""
    if tensor.requires_grad or tensor.layout is not torch.strided or tensor.is_quantized or vars(tensor):
        raise UnknownError("a tensor of a kind of its own")
    return tensor.detach()
