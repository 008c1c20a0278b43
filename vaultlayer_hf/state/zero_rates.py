"""Learning rates that are 0 behind a resume: the schedule is at its end, and more steps are asked for. Pure.

A start with more epochs, or with batches of another size, may have more steps than its schedule was made for. Neither
torch nor the Trainer says so: training goes on, and changes no weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from vaultlayer_hf.state.schedules import unwrapped_schedule

_MOVES = 2
"""How often a schedule has gone on to a rate that is 0 again. A checkpoint of a schedule's end brings the rate 0 along,
and one that goes on, a longer one or one that rises again, sets another as soon as it moves."""
_STILL = 100
"""Steps after which a schedule that doesn't move, as one of epochs, is at its end, too."""


class ZeroRates:
    """Looks at the rates behind the steps of a training.

    Args:
        goes_on: it goes on from a checkpoint; else there is nothing to look for.
    """

    def __init__(self, *, goes_on: bool) -> None:
        self._looks = goes_on
        self._places: list[int] = []  # where the schedule has been since the rates are 0
        self._steps = 0

    def step_done(self, optimizers: Iterable[Any], schedulers: Iterable[Any]) -> str:
        """Note that a step is done; return, once, what is to be said of the rates, and nothing else."""
        over = _past_their_begin(schedulers) if self._looks and _all_zero(optimizers) else []
        if not over:
            self._places, self._steps = [], 0
            return ""
        place = max(map(_place, over))
        self._steps += 1
        if place not in self._places:
            self._places.append(place)
        if len(self._places) <= _MOVES and self._steps < _STILL:
            return ""
        self._looks = False
        names = " and ".join(dict.fromkeys(type(one).__name__ for one in over))
        return (
            f"the learning rate is 0, so training changes no weight: the schedule {names} is at its end, at its step "
            f"{self._places[0]}: give it {_remedy(over)}"
        )


def _all_zero(optimizers: Iterable[Any]) -> bool:
    """Tell whether each group of each optimizer has the rate 0.

    False where a rate can't be told, or is in a device's memory: to read it there would hold up each step.
    """
    try:
        inner = (getattr(one, "optimizer", one) for one in optimizers if one is not None)
        rates = [group["lr"] for one in inner for group in one.param_groups]
        return bool(rates) and not any(_elsewhere(one) or float(one) for one in rates)
    except Exception:  # objects of the script's own, and optimizers that make their rate themselves
        return False


def _elsewhere(rate: Any) -> bool:
    return isinstance(rate, torch.Tensor) and rate.device.type != "cpu"


def _past_their_begin(schedulers: Iterable[Any]) -> list[Any]:
    """Return the schedules that have moved, and haven't begun with a rate of 0: a warm-up's first rate may be 0."""
    bare = [unwrapped_schedule(one) for one in schedulers if one is not None]
    return [one for one in bare if _place(one) > 0 and _has_a_rate(one)]


def _has_a_rate(scheduler: Any) -> bool:
    groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", ())
    return any(getattr(scheduler, "base_lrs", ())) or any(group.get("initial_lr") for group in groups)


def _place(scheduler: Any) -> int:
    place = getattr(scheduler, "last_epoch", None)
    return place if isinstance(place, int) else 0


def _remedy(schedulers: Sequence[Any]) -> str:
    more = "as many steps as are trained in all"
    # A function isn't in a checkpoint, so this start's holds.
    if all(isinstance(one, LambdaLR) for one in schedulers):
        return more
    return (
        f"{more}. The checkpoint's numbers of it hold, so begin a fork for that: Settings(vault='a new one', "
        "fork='this one')"
    )
