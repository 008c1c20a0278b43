"""Which tensors the steps of optimizers change, and which they don't; and what of an optimizer decides when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from vaultlayer_hf.state.capture.fit import OptimizerFacts

_PLAIN = (torch.Tensor, torch.nn.Parameter)
"""What has one storage of its own: shards and quantized tensors don't."""


def optimizer_facts(optimizers: Sequence[Any], parameters: Iterable[torch.Tensor]) -> OptimizerFacts:
    """Return what of plain optimizers decides how saves run. Raises what a script's own objects raise.

    ``parameters``: what is trained.
    """
    return OptimizerFacts(
        has_step_hooks=all(map(has_step_hooks, optimizers)),
        steps_another=any(map(held_by, optimizers)),
        steps_in_backward=any(callable(getattr(one, "fused_backward", None)) for one in optimizers)
        or any(getattr(one, "_post_accumulate_grad_hooks", None) for one in parameters),
        swaps_for_evaluation=any(callable(getattr(one, "eval", None)) for one in optimizers),
    )


def has_step_hooks(optimizer: Any) -> bool:
    """Tell whether an optimizer calls hooks around its steps."""
    # Torch puts its hooks around the step of a class when the first optimizer of it is made. One that doesn't call
    # torch's own __init__, as wrappers do, takes hooks and never calls them.
    return isinstance(optimizer, torch.optim.Optimizer) and bool(
        getattr(type(optimizer).step, "hooked", False)
    )


def held_by(optimizer: Any) -> list[Any]:
    """Return the optimizers that another one holds, as SAM and Lookahead do."""
    held = [*getattr(optimizer, "__dict__", {}).values()]
    held += [one for each in held if isinstance(each, (list, tuple)) for one in each]
    return [one for one in held if isinstance(one, torch.optim.Optimizer)]


def plain(optimizer: Any) -> Any:
    """Return the optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer) if _is_accelerates(optimizer) else optimizer


def _is_accelerates(optimizer: Any) -> bool:
    return type(optimizer).__module__.partition(".")[0] == "accelerate"


def stepped_by(optimizers: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors that the steps of plain optimizers change: their parameters, and their state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            yield from group["params"]
        for kept in optimizer.state.values():
            yield from tensors_in(kept)


def not_stepped_by(optimizers: Iterable[Any], models: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    """Yield the models' tensors that something else than these steps may change."""
    given = {
        id(one) for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]
    }
    for model in models:
        yield from model.buffers()
        yield from (one for one in model.parameters() if id(one) not in given)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)


def place(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def is_small(tensors: Iterable[torch.Tensor], bound: int) -> bool:
    """Tell whether tensors have fewer bytes than a bound: False where one isn't plain, whose bytes aren't counted."""
    found = list(tensors)
    return all(type(one) in _PLAIN for one in found) and size_of(found) < bound


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the storages of plain tensors, each counted once: shards have none of their own."""
    plain = (one for one in tensors if type(one) in _PLAIN)
    return sum({place(one): one.untyped_storage().nbytes() for one in plain}.values())
