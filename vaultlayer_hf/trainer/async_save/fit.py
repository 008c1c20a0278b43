"""Where a Trainer's save may run beside its training. Pure.

Beyond what its optimizer decides (state/capture/fit.py): where others write to the checkpoint's folder, or read it
inside the save, the stock save is left as it is, and training waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vaultlayer_hf.state.capture.fit import Fit, OptimizerFacts

UNDERSTOOD = (
    "transformers",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "trl.trainer.reward_trainer",
)
"""Packages and modules whose saves write to the checkpoint's folder through stock's own methods alone."""
_IN_BACKWARD = ("lomo", "adalomo")


@dataclass(frozen=True)
class Facts(OptimizerFacts):
    """What decides it, of one Trainer, beside its optimizer.

    Attributes:
        wanted: whether the settings ask for it.
        engine: what else saves the training: ``"DeepSpeed"``, FSDP in shards; or nothing.
        gathers: whether FSDP gathers the whole state in each save.
        saved_by: ``module.method`` of each part of the save.
        trained_by: the same of the methods that hold the steps.
        pushes: whether the save pushes the checkpoint's folder to the Hub.
        away: whether some of the model lies elsewhere than on its device: on a disk, in host memory, on no device.
        optim: as the arguments have it.
    """

    wanted: bool = True
    engine: str = ""
    gathers: bool = False
    saved_by: Sequence[str] = ()
    trained_by: Sequence[str] = ()
    pushes: bool = False
    away: bool = False
    optim: str = ""


def choose(facts: Facts) -> Fit:
    """Return how a Trainer with these facts saves.

    >>> choose(Facts(engine="DeepSpeed"))
    Fit(mode='waiting', reason='DeepSpeed saves in its own way')
    """
    if not facts.wanted:
        return Fit("waiting")
    waiting = _why_waiting(facts)
    if waiting:
        return Fit("waiting", waiting)
    copied = _why_copied(facts)
    return Fit("copied", copied) if copied else Fit("overlapped")


def _why_waiting(facts: Facts) -> str:
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
    if facts.gathers:
        return "FSDP gathers the state in each of them"
    in_backward = "layerwise" in facts.optim or facts.optim in _IN_BACKWARD
    optimizer = replace(facts, steps_in_backward=facts.steps_in_backward or in_backward).why_copied
    if optimizer:
        return optimizer
    other = [name for name in facts.trained_by if name.split(".")[0] not in ("transformers", "trl")]
    return f"the steps are {', '.join(other)}'s, which may change the weights at any time" if other else ""
