"""What a Trainer trains outside its model: no checkpoint of the Trainer holds it, so it is said at the first save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.trainer.loaded import Trained


def warn_of_outside(events: Events, rank: int, trained: Trained, added: Iterable[Any] = ()) -> None:
    """Say, once each, that parameters which are trained, or an optimizer's state, are in no checkpoint. Never raises.

    ``added``: objects whose state is carried besides. Nothing is said where the model is sharded: there an optimizer
    may hold parameters of its own making, and parameters hooks of the engine.
    """
    try:
        optimizer = getattr(trained.optimizer, "optimizer", trained.optimizer)
        own = any(
            "deepspeed" in type(one).__module__ for one in (trained.model, trained.optimizer, optimizer)
        )
        if rank or optimizer is None or own or trained.sharded:
            return
        modules = [trained.model, *(one for one in added if isinstance(one, torch.nn.Module))]
        held = {id(parameter) for module in modules for parameter in module.parameters()}
        outside = [one for group in optimizer.param_groups for one in group["params"] if id(one) not in held]
        carried = {id(one) for one in added}
        hidden = {
            id(one): one
            for parameter in trained.model.parameters()
            for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()
            for one in _optimizers_of(hook)
            if one is not optimizer and id(one) not in carried and one.state_dict()["state"]
        }
    except Exception:  # a user's optimizer may lack these, or raise whatever it likes
        return
    if outside:
        values = sum(one.numel() for one in outside)
        events.warn_once(
            "outside",
            EventKind.INEXACT,
            f"the optimizer trains {len(outside)} parameter(s) ({values} values) that the model doesn't have, so no "
            "checkpoint holds them, and a resume begins with new ones: make their module a part of the model "
            "(model.head = head) before the Trainer is made, or carry it beside: trainer.vault.add('head', head)",
        )
    if hidden:
        names = ", ".join(sorted({type(one).__name__ for one in hidden.values()}))
        events.warn_once(
            "hooks",
            EventKind.INEXACT,
            f"{len(hidden)} optimizer(s) ({names}) step in hooks on the parameters' gradients, so no checkpoint holds "
            "their state, and a resume begins with a new one: the numbers will differ from an unbroken run's. Take an "
            "optimizer that steps in one place (one without layerwise in its name), or carry each: "
            "trainer.vault.add('layer-1', optimizer)",
        )


def _optimizers_of(hook: Any) -> Iterator[torch.optim.Optimizer]:
    """Yield the optimizers that a hook has hold of: in its closure, its own object, or bound arguments."""
    cells = [cell.cell_contents for cell in getattr(hook, "__closure__", None) or ()]
    partial = [*getattr(hook, "args", ()), *(getattr(hook, "keywords", None) or {}).values()]
    for one in (*cells, *partial, getattr(hook, "__self__", None)):
        every = one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else [one]
        yield from (found for found in every if isinstance(found, torch.optim.Optimizer))
