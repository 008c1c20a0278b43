"""Where a loop's save may run beside its training. Pure.

The premise: what an optimizer is given changes in its ``step`` alone, and something can be put in front of that. So the
copy may run until the next one. Where a step is hidden elsewhere, the copy is over before the save
returns. Where the files are others' business, training waits until they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["overlapped", "copied", "waiting"]
"""The state is copied while the next step computes; before the save returns; or training waits for the files."""
_WHAT = {
    "waiting": "saves keep training waiting until they are written",
    "copied": "saves keep training waiting while the state is copied",
}


@dataclass(frozen=True)
class LoopFacts:
    """What decides it, of one loop.

    Attributes:
        world_size: ranks that save together.
        engine: what keeps the model in parts, or saves in its own way: ``"FSDP"``, ``"DEEPSPEED"``; or nothing.
        optimizers: how many there are.
        has_step_hooks: whether a function can be put in front of the step of each.
        steps_in_backward: whether parameters have hooks behind their gradients.
        swaps_for_evaluation: whether an optimizer changes the weights between training and evaluation.
    """

    world_size: int = 1
    engine: str = ""
    optimizers: int = 1
    has_step_hooks: bool = True
    steps_in_backward: bool = False
    swaps_for_evaluation: bool = False


@dataclass(frozen=True)
class LoopFit:
    """How a loop's saves run.

    Attributes:
        mode: see ``Mode``.
        reason: why not "overlapped"; empty where it is.
    """

    mode: Mode
    reason: str = ""

    @property
    def text(self) -> str:
        """What a person is told of it; empty: nothing."""
        return f"async_save: {_WHAT[self.mode]}: {self.reason}" if self.reason else ""


def choose_for_loop(facts: LoopFacts) -> LoopFit:
    """Return how a loop with these facts saves.

    >>> choose_for_loop(LoopFacts(world_size=2))
    LoopFit(mode='waiting', reason='2 ranks save together')
    """
    if facts.engine:
        return LoopFit("waiting", f"{facts.engine} saves in its own way")
    if facts.world_size > 1:
        return LoopFit("waiting", f"{facts.world_size} ranks save together")
    copied = _why_copied(facts)
    return LoopFit("copied", copied) if copied else LoopFit("overlapped")


def _why_copied(facts: LoopFacts) -> str:
    if not facts.optimizers:
        return "there is no optimizer whose step could be waited for"
    if facts.steps_in_backward:
        return "the optimizer steps inside the backward pass"
    if facts.swaps_for_evaluation:
        return "the optimizer changes the weights between training and evaluation"
    if not facts.has_step_hooks:
        return "nothing can be put in front of the optimizer's step"
    return ""
