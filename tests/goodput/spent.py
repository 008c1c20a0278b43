"""Where the time of a training that is killed went, from when each of its steps ended."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """A step that has ended.

    Attributes:
        at: when, in seconds of the clock.
        number: which one.
        pid: of the process that has trained it.
    """

    at: float
    number: int
    pid: int


@dataclass(frozen=True)
class Spent:
    """Seconds that didn't go into steps which count.

    Attributes:
        start: from the begin to the first step's begin.
        restarts: from each kill to the next step's begin, all together.
        lost: steps that were trained again, and the parts of steps in which kills came.
        saves: between a step behind which the script saves and the next one.
        between: between all other steps; where saves come behind others, these, too.
    """

    start: float
    restarts: float
    lost: float
    saves: float
    between: float


def spent_beside(
    steps: Sequence[Step], begun: float, kills: Sequence[float], end: float, pace: float, save_every: int
) -> Spent:
    """Return where the time from ``begun`` to ``end`` went; a step takes ``pace`` seconds, a save comes each so many.

    >>> steps = [Step(3.0, 1, 7), Step(4.5, 2, 7), Step(8.0, 2, 8), Step(9.0, 3, 8)]
    >>> spent_beside(steps, 0.0, [5.0], 9.0, 1.0, 2)
    Spent(start=2.0, restarts=2.0, lost=1.5, saves=0.0, between=0.5)
    """
    if not steps:
        return Spent(end - begun, 0.0, 0.0, 0.0, 0.0)
    restarts = saves = between = 0.0
    lost = (len(steps) - steps[-1].number) * pace
    moments = sorted(kills)
    for before, step in itertools.pairwise(steps):
        took = step.at - before.at - pace
        at = bisect.bisect(moments, before.at)
        if step.pid != before.pid and at < len(moments) and moments[at] < step.at:
            lost += moments[at] - before.at
            restarts += step.at - moments[at] - pace
        elif before.number % save_every == 0:
            saves += took
        else:
            between += took
    return Spent(steps[0].at - begun - pace, restarts, lost + max(0.0, end - steps[-1].at), saves, between)
