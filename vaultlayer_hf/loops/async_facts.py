"""What decides whether a loop's save may run beside its training, read from what it trains."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from vaultlayer_hf.loops.async_fit import LoopFacts
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.state.capture.copying import not_stepped_by, stepped_by
from vaultlayer_hf.state.capture.recorded import Place


def loop_facts(state: Stateful, world_size: int) -> LoopFacts:
    """Return what decides how a loop saves. Raises what the script's own objects raise."""
    optimizers = plain_optimizers(state)
    return LoopFacts(
        world_size=world_size,
        engine=state.engine,
        optimizers=len(optimizers),
        has_step_hooks=all(isinstance(one, torch.optim.Optimizer) for one in optimizers),
        steps_in_backward=any(getattr(one, "_post_accumulate_grad_hooks", None) for one in stepped(state)),
        swaps_for_evaluation=any(callable(getattr(one, "eval", None)) for one in optimizers),
    )


def plain_optimizers(state: Stateful) -> list[Any]:
    """Return the optimizers inside accelerate's wrappers."""
    return [getattr(one, "optimizer", one) for one in state.optimizers]


def stepped(state: Stateful) -> Iterator[torch.Tensor]:
    """Yield the tensors that an optimizer's step changes: its parameters, and its state."""
    return stepped_by(plain_optimizers(state))


def others(state: Stateful) -> Iterator[torch.Tensor]:
    """Yield the models' tensors that something else than an optimizer's step may change."""
    return not_stepped_by(plain_optimizers(state), state.models().values())


def all_tensors(state: Stateful) -> Iterator[torch.Tensor]:
    """Yield what is trained, and the rest of the models."""
    yield from stepped(state)
    yield from others(state)


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the storages of tensors, each counted once."""
    return sum({place(one): one.untyped_storage().nbytes() for one in tensors}.values())


def place(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def places() -> list[Place]:
    """Return where accelerate and transformers look up ``save_file``, those of them that are imported."""
    names = ("accelerate.utils.other", "transformers.modeling_utils")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    return [(module, "safe_save_file") for module in modules if hasattr(module, "safe_save_file")]
