"""What a Trainer trains outside its model: no checkpoint of the Trainer holds it, so it is said at the first save."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.trainer.loaded import Trained


def warn_of_outside(events: Events, rank: int, trained: Trained) -> None:
    """Say, once, that the optimizer trains parameters which the model doesn't have. Never raises.

    Nothing is said where the model is sharded: there an optimizer may hold parameters of its own making.
    """
    try:
        optimizer = getattr(trained.optimizer, "optimizer", trained.optimizer)
        own = any(
            "deepspeed" in type(one).__module__ for one in (trained.model, trained.optimizer, optimizer)
        )
        if rank or optimizer is None or own or trained.sharded:
            return
        held = {id(parameter) for parameter in trained.model.parameters()}
        outside = [one for group in optimizer.param_groups for one in group["params"] if id(one) not in held]
    except Exception:  # a user's optimizer may lack these, or raise whatever it likes
        return
    if outside:
        values = sum(one.numel() for one in outside)
        events.warn_once(
            "outside",
            EventKind.INEXACT,
            f"the optimizer trains {len(outside)} parameter(s) ({values} values) that the model doesn't have, so no "
            "checkpoint holds them, and a resume begins with new ones: make their module a part of the model "
            "(model.head = head) before the Trainer is made",
        )
