"""What a Trainer changes and no checkpoint of its holds: parameters outside the model, buffers that aren't saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.state.tensor_digests import Digests, digest_tensors
from vaultlayer_hf.trainer.trained import Trained

_ROTARY = ("inv_freq", "original_inv_freq", "cos_cached", "sin_cached")
"""Tables of positions, which models make anew for longer inputs."""


@dataclass(frozen=True)
class _Outside:
    """What is trained and no checkpoint holds.

    Attributes:
        parameters: what the optimizer trains of neither the model nor a module that is carried besides.
        uncleared: parameters outside the model whose gradients aren't cleared.
        hidden: optimizers that step in hooks on the parameters' gradients.
    """

    parameters: Sequence[torch.nn.Parameter] = ()
    uncleared: Sequence[torch.nn.Parameter] = ()
    hidden: Sequence[torch.optim.Optimizer] = ()


class OutsideOfModel:
    """Says, once each, that parameters which are trained, or an optimizer's state, are in no checkpoint.

    Each look walks through all modules while training stands still, so after the first save it looks again only where
    the optimizer has other parameters in number.
    """

    def __init__(self) -> None:
        self._looked_at = -1

    def look(self, events: Events, rank: int, trained: Trained, added: Iterable[Any] = ()) -> None:
        """Look for them, at a save. Never raises.

        ``added``: objects whose state is carried besides. Nothing is said where the model is sharded: there an
        optimizer may hold parameters of its own making, and parameters hooks of the engine.
        """
        if rank:
            return
        try:
            number = sum(len(group["params"]) for group in getattr(trained.optimizer, "param_groups", ()))
            if number == self._looked_at:
                return
            found = _find_outside(trained, added)
            self._looked_at = number
        except Exception:  # a user's optimizer may lack what is asked for, or raise whatever it likes
            return
        _say(events, found)


def _say(events: Events, found: _Outside) -> None:
    if found.parameters:
        values = sum(one.numel() for one in found.parameters)
        events.warn_once(
            "outside",
            EventKind.INEXACT,
            f"the optimizer trains {len(found.parameters)} parameter(s) ({values} values) that the model doesn't have, "
            "so no checkpoint holds them, and a resume begins with new ones: make their module a part of the model "
            "(model.head = head) before the Trainer is made, or carry it beside: trainer.vault.add('head', head)",
        )
    if found.uncleared:
        events.warn_once(
            "uncleared",
            EventKind.INEXACT,
            f"{len(found.uncleared)} parameter(s) outside the model have gradients at a save: the Trainer clears those "
            "of its model alone, so these add up from step to step, and a resume begins without them. Call "
            "optimizer.zero_grad() after each step, in a callback's on_step_end, say",
        )
    if found.hidden:
        names = ", ".join(sorted({type(one).__name__ for one in found.hidden}))
        events.warn_once(
            "hooks",
            EventKind.INEXACT,
            f"{len(found.hidden)} optimizer(s) ({names}) step in hooks on the parameters' gradients, so no checkpoint "
            "holds their state, and a resume begins with a new one: the numbers will differ from an unbroken run's. "
            "Take an optimizer that steps in one place (one without layerwise in its name), or carry each: "
            "trainer.vault.add('layer-1', optimizer)",
        )


def _find_outside(trained: Trained, added: Iterable[Any]) -> _Outside:
    """Find what is trained and no checkpoint holds. Raises whatever an object of the script's own raises."""
    optimizer = getattr(trained.optimizer, "optimizer", trained.optimizer)
    of_engine = any(
        "deepspeed" in type(one).__module__ for one in (trained.model, trained.optimizer, optimizer)
    )
    if optimizer is None or of_engine or trained.sharded:
        return _Outside()
    added = list(added)
    of_model = list(trained.model.parameters())
    in_model = {id(parameter) for parameter in of_model}
    modules = [one for one in added if isinstance(one, torch.nn.Module)]
    carried = {id(parameter) for module in modules for parameter in module.parameters()}
    of_optimizer = [one for group in optimizer.param_groups for one in group["params"]]
    beside = [one for one in of_optimizer if id(one) not in in_model]
    hidden = {
        id(one): one
        for parameter in of_model
        for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()
        for one in _optimizers_of(hook)
        if one is not optimizer and not any(one is other for other in added) and one.state_dict()["state"]
    }
    return _Outside(
        [one for one in beside if id(one) not in carried],
        [one for one in beside if one.grad is not None and bool(one.grad.any())],
        list(hidden.values()),
    )


class UnsavedBuffers:
    """Says, once, that buffers which no checkpoint holds (``persistent=False``) change as the model is trained.

    Most such buffers are tables that are made anew, and some of these only at the first forward pass. So what counts is
    what changes between the first save and the second one.
    """

    def __init__(self) -> None:
        self._first: Digests | None = None
        self._looked = False

    def look(self, events: Events, rank: int, trained: Trained) -> None:
        """Look at them, at a save. Never raises."""
        if rank or self._looked or trained.sharded:
            return
        try:
            now = digest_tensors(_unsaved(trained.model))
        except Exception:  # a user's model may hold what can't be read
            now = {}
        if self._first is None:
            self._first = now
            return
        self._looked = True
        moved = [name for name in now if self._first.get(name, now[name]) != now[name]]
        same = [
            name for name in moved if self._first[name].rpartition(" ")[0] == now[name].rpartition(" ")[0]
        ]
        if same:
            events.warn_once(
                "buffers",
                EventKind.INEXACT,
                f"{', '.join(same[:3])}{' and others' * (len(same) > 3)}: these buffers of the model change as it is "
                "trained, and no checkpoint holds them, since they are registered with persistent=False: a resume "
                "begins with them as the script makes them, and the numbers may differ from an unbroken run's. Leave "
                "persistent=False out where their content matters",
            )


def _unsaved(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules():
        for name, tensor in unsaved_buffers(module).items():
            yield f"{prefix}.{name}".lstrip("."), tensor


def unsaved_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's own buffers that no checkpoint holds, but tables of positions."""
    names = [name for name in module._non_persistent_buffers_set if name not in _ROTARY]
    return {name: one for name in names if (one := module._buffers.get(name)) is not None}


def accumulated(trainer: Any) -> list[str]:
    """Return in words that gradients are accumulated over a save, which no checkpoint holds; nothing where they aren't.

    Up to transformers 4.51 they are behind the last step of an epoch, where that has fewer batches than the others.
    """
    if trainer is None or trainer.args.gradient_accumulation_steps == 1:
        return []
    some = any(parameter.grad is not None for parameter in trainer.model.parameters())
    return ["gradients that are accumulated over the save"] if some else []


def _optimizers_of(hook: Any) -> Iterator[torch.optim.Optimizer]:
    """Yield the optimizers that a hook has hold of: in its closure, its own object, or bound arguments."""
    cells = [cell.cell_contents for cell in getattr(hook, "__closure__", None) or ()]
    partial = [*getattr(hook, "args", ()), *(getattr(hook, "keywords", None) or {}).values()]
    for one in (*cells, *partial, getattr(hook, "__self__", None)):
        every = one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else [one]
        yield from (found for found in every if isinstance(found, torch.optim.Optimizer))
