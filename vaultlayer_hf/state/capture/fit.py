"""How a training's saves run: beside it, or waited for; and what of its optimizers decides that. Pure.

The premise: what an optimizer is given changes in its ``step`` alone, and something can be put in front of that. So the
copy may run until the next one. Where a step is hidden elsewhere, the copy is over before the save returns. Where the
files are others' business, training waits until they are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["overlapped", "copied", "waiting"]
"""The state is copied while the next step computes; before the save returns; or training waits for the files."""
_ORDER = ("waiting", "copied", "overlapped")
_WHAT = {
    "waiting": "saves keep training waiting until they are written",
    "copied": "saves keep training waiting while the state is copied",
}


@dataclass(frozen=True)
class OptimizerFacts:
    """What of a training's optimizers decides whether a copy may run until their next step.

    Attributes:
        has_step_hooks: whether a function can be put in front of the step of each.
        steps_another: whether one steps through another one inside it, at moments of its own.
        steps_in_backward: whether parameters change inside the backward pass.
        swaps_for_evaluation: whether one changes the weights between training and evaluation.
    """

    has_step_hooks: bool = True
    steps_another: bool = False
    steps_in_backward: bool = False
    swaps_for_evaluation: bool = False

    @property
    def why_copied(self) -> str:
        """Why the copy has to be over before the save returns; empty: it needn't."""
        if self.steps_in_backward:
            return "the optimizer steps inside the backward pass"
        if self.swaps_for_evaluation:
            return "the optimizer changes the weights between training and evaluation"
        if self.steps_another:
            return "the optimizer steps through another one inside it"
        if not self.has_step_hooks:
            return "nothing can be put in front of the optimizer's step"
        return ""


@dataclass(frozen=True)
class Fit:
    """How saves run.

    Attributes:
        mode: see ``Mode``.
        reason: why not "overlapped"; empty where it is, or where nobody asked.
    """

    mode: Mode
    reason: str = ""

    @property
    def text(self) -> str:
        """What a person is told of it; empty: nothing."""
        return f"async_save: {_WHAT[self.mode]}: {self.reason}" if self.reason else ""


def slowest(fits: Sequence[Fit]) -> Fit:
    """Return how ranks save together: as the one that can least, whose reason is named.

    >>> slowest([Fit("overlapped"), Fit("copied", "the optimizer steps inside the backward pass")])
    Fit(mode='copied', reason='rank 1: the optimizer steps inside the backward pass')
    """
    rank, least = min(enumerate(fits), key=lambda one: _ORDER.index(one[1].mode))
    if len({fit.mode for fit in fits}) == 1:
        return least
    return Fit(least.mode, f"rank {rank}: {least.reason or 'its settings do not ask for it'}")
