"""Where a Trainer's save may run beside its training. Pure.

The premise: what an optimizer is given changes in its ``step`` alone, so the copy of it may run until the next one.
Where a step is hidden elsewhere, the copy is over before the save returns. Where others write to the checkpoint's
folder, or read it inside the save, the stock save is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["overlapped", "copied", "stock"]
"""The state is copied while the next step computes; before the save returns; or stock's own save is used."""

UNDERSTOOD = (
    "transformers",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "trl.trainer.reward_trainer",
)
"""Packages and modules whose saves write to the checkpoint's folder through stock's own methods alone."""
_ORDER = ("stock", "copied", "overlapped")
_IN_BACKWARD = ("lomo", "adalomo")


@dataclass(frozen=True)
class Facts:
    """What decides it, of one Trainer.

    Attributes:
        wanted: whether the settings ask for it.
        engine: what else drives the training: ``"DeepSpeed"``, ``"FSDP"``; or nothing.
        saved_by: ``module.method`` of each part of the save.
        trained_by: the same of the methods that hold the steps.
        pushes: whether the save pushes the checkpoint's folder to the Hub.
        away: whether some of the model lies elsewhere than on its device: on a disk, in host memory, on no device.
        optim: as the arguments have it.
        has_step_hooks: whether a function can be put in front of the optimizer's step.
        steps_in_backward: whether parameters have hooks behind their gradients.
        swaps_for_evaluation: whether the optimizer changes the weights between training and evaluation.
    """

    wanted: bool = True
    engine: str = ""
    saved_by: Sequence[str] = ()
    trained_by: Sequence[str] = ()
    pushes: bool = False
    away: bool = False
    optim: str = ""
    has_step_hooks: bool = True
    steps_in_backward: bool = False
    swaps_for_evaluation: bool = False


@dataclass(frozen=True)
class Fit:
    """How a Trainer's saves run.

    Attributes:
        mode: see ``Mode``.
        reason: why not "overlapped"; empty where it is, or where nobody asked.
    """

    mode: Mode
    reason: str = ""


def choose(facts: Facts) -> Fit:
    """Return how a Trainer with these facts saves.

    >>> choose(Facts(engine="DeepSpeed"))
    Fit(mode='stock', reason='DeepSpeed saves in its own way')
    """
    if not facts.wanted:
        return Fit("stock")
    stock = _why_stock(facts)
    if stock:
        return Fit("stock", stock)
    copied = _why_copied(facts)
    return Fit("copied", copied) if copied else Fit("overlapped")


def slowest(fits: Sequence[Fit]) -> Fit:
    """Return how ranks save together: as the one that can least, whose reason is named.

    >>> slowest([Fit("overlapped"), Fit("copied", "the optimizer steps inside the backward pass")])
    Fit(mode='copied', reason='rank 1: the optimizer steps inside the backward pass')
    """
    rank, least = min(enumerate(fits), key=lambda one: _ORDER.index(one[1].mode))
    if len({fit.mode for fit in fits}) == 1:
        return least
    return Fit(least.mode, f"rank {rank}: {least.reason or 'its settings do not ask for it'}")


def _why_stock(facts: Facts) -> str:
    if facts.engine:
        return f"{facts.engine} saves in its own way"
    if facts.pushes:
        return "push_to_hub reads the checkpoint's folder inside the save"
    if facts.away:
        return "part of the model isn't on its device"
    other = [
        name
        for name in facts.saved_by
        if name.split(".")[0] not in UNDERSTOOD and name.rpartition(".")[0] not in UNDERSTOOD
    ]
    return f"the save is {', '.join(other)}, whose files aren't known" if other else ""


def _why_copied(facts: Facts) -> str:
    if "layerwise" in facts.optim or facts.optim in _IN_BACKWARD or facts.steps_in_backward:
        return "the optimizer steps inside the backward pass"
    if facts.swaps_for_evaluation:
        return "the optimizer changes the weights between training and evaluation"
    if not facts.has_step_hooks:
        return "nothing can be put in front of the optimizer's step"
    other = [name for name in facts.trained_by if name.split(".")[0] not in ("transformers", "trl")]
    return f"the steps are {', '.join(other)}'s, which may change the weights at any time" if other else ""
