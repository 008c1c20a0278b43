"""What decides whether a loop's save may run beside its training, read from what it trains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from vaultlayer_hf.loops.async_fit import LoopFacts
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.state.capture.recorded import Place
from vaultlayer_hf.state.capture.stepped import not_stepped_by, optimizer_facts, plain, stepped_by


def loop_facts(state: Stateful, world_size: int) -> LoopFacts:
    """Return what decides how a loop saves. Raises what the script's own objects raise."""
    optimizers = plain_optimizers(state)
    return LoopFacts(
        world_size=world_size,
        engine=state.engine,
        optimizers=len(optimizers),
        **vars(optimizer_facts(optimizers, stepped(state))),
    )


def plain_optimizers(state: Stateful) -> list[Any]:
    """Return the optimizers inside accelerate's wrappers."""
    return list(map(plain, state.optimizers))


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


def places() -> list[Place]:
    """Return where accelerate and transformers look up ``save_file``, those of them that are imported."""
    names = ("accelerate.utils.other", "transformers.modeling_utils")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    return [(module, "safe_save_file") for module in modules if hasattr(module, "safe_save_file")]
