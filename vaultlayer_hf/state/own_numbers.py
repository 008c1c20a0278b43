"""The numbers of a script's own optimizers and schedules, put back behind the load of a checkpoint: for a fork.

``load_state_dict`` brings a checkpoint's learning rate, weight decay and schedule along. A fork is begun to try others,
so what the script has made holds: taken before the load, put back behind it. The optimizer's moments stay the
checkpoint's, and so does the schedule's place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from vaultlayer_hf.errors import ResumeError

_NUMBERS = (
    *("lr", "initial_lr", "weight_decay", "betas", "eps", "momentum", "dampening", "nesterov", "amsgrad"),
    *("alpha", "rho", "lambd", "maximize", "max_lr", "min_lr", "max_momentum", "base_momentum"),
)
"""What is a script's choice in an optimizer's groups; others may be what an optimizer counts, as Prodigy does."""
_PLACE = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"}
"""Where a schedule is: the checkpoint's."""
_BY_PLACE = {"OneCycleLR": ("_schedule_phases", "_anneal_func_type"), "CosineAnnealingWarmRestarts": ()}
"""Schedules whose ``get_lr()`` follows from their place and their options alone, with those that are no numbers."""


@dataclass(frozen=True)
class OwnNumbers:
    """The numbers of optimizers and schedules.

    Attributes:
        groups: of each optimizer, those of each of its groups.
        schedules: of each schedule, its rates at the beginning and its plain numbers; None: it has no such rates.
    """

    groups: list[list[dict[str, Any]]] = field(default_factory=list)
    schedules: list[tuple[list[float], dict[str, Any]] | None] = field(default_factory=list)


def take_numbers(optimizers: Sequence[Any], schedulers: Sequence[Any]) -> OwnNumbers:
    """Return the numbers of optimizers and schedules as they are; wrappers of accelerate are looked through."""
    return OwnNumbers(
        [
            [{name: _plain(group[name]) for name in _NUMBERS if name in group} for group in _groups(one)]
            for one in optimizers
        ],
        [_schedule(_bare(one, "scheduler")) for one in schedulers if one is not None],
    )


def put_numbers(own: OwnNumbers, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> str:
    """Put numbers back behind the load of a checkpoint; say in words which of two holds now."""
    kept = [_bare(one, "scheduler") for one in schedulers if one is not None]
    moving = [one for one, numbers in zip(kept, own.schedules, strict=False) if _rates(one, numbers) is None]
    theirs = {id(_bare(one.optimizer, "optimizer")) for one in moving if hasattr(one, "optimizer")}
    for optimizer, groups in zip(optimizers, own.groups, strict=False):
        for group, numbers in zip(_groups(optimizer), groups, strict=False):
            for name, value in numbers.items():
                if name in ("lr", "initial_lr") and id(_bare(optimizer, "optimizer")) in theirs:
                    continue
                _put(group, name, value)
    for scheduler, before in zip(kept, own.schedules, strict=False):
        if before is None or scheduler in moving:
            continue
        if _is_same(scheduler, before) and not _is_computed(scheduler):
            # A closed form may round otherwise than the steps that led here: a fork that changes nothing stays exact.
            rates = list(scheduler._last_lr)
        else:
            scheduler.base_lrs = list(before[0])
            vars(scheduler).update(before[1])
            rates = _rates(scheduler, before) or []
        for group, rate in zip(_groups(scheduler.optimizer), rates, strict=False):
            _put(group, "lr", rate)
        scheduler._last_lr = list(rates)
    place = "the optimizer's moments, the schedule's place, random numbers and the data's place are the checkpoint's"
    if not moving:
        return f"a fork: this script's learning rate, weight decay, betas and schedule hold; {place}"
    names = ", ".join(sorted({type(one).__name__ for one in moving}))
    return (
        "a fork: this script's weight decay and betas hold; the learning rate is the checkpoint's, as that of "
        f"{names} follows from what came before; {place}"
    )


def _is_same(scheduler: Any, before: tuple[list[float], dict[str, Any]]) -> bool:
    """Tell whether a loaded schedule has the numbers that the script's own had."""
    return bool(scheduler.base_lrs == before[0]) and before[1].items() <= vars(scheduler).items()


def _is_computed(scheduler: Any) -> bool:
    """Tell whether rates are computed anew though no number differs.

    Of functions nothing is known; and a schedule that moves the betas, too, has to set them again behind the script's.
    """
    return isinstance(scheduler, LambdaLR) or bool(getattr(scheduler, "cycle_momentum", False))


def _rates(scheduler: Any, numbers: tuple[list[float], dict[str, Any]] | None) -> list[float] | None:
    """Return the learning rates of a schedule at its place; None where they can't be computed from that alone."""
    if numbers is None or len(numbers[0]) != len(_groups(getattr(scheduler, "optimizer", None))):
        return None
    if isinstance(scheduler, LambdaLR):
        place = scheduler.last_epoch
        return [
            float(base * shape(place)) for base, shape in zip(numbers[0], scheduler.lr_lambdas, strict=True)
        ]
    closed = getattr(scheduler, "_get_closed_form_lr", None)
    if type(scheduler).__name__ in _BY_PLACE:
        closed = scheduler.get_lr
    if closed is None:
        return None
    scheduler._get_lr_called_within_step = (
        True  # else torch warns that this isn't how to ask for the newest rate
    )
    try:
        return [float(rate) for rate in closed()]
    except ValueError as error:  # OneCycleLR has an end
        raise ResumeError(
            f"the script's {type(scheduler).__name__} can't be where the checkpoint is, behind step "
            f"{scheduler.last_epoch} of the schedule: {error}. Give it more steps"
        ) from error
    finally:
        scheduler._get_lr_called_within_step = False


def _schedule(scheduler: Any) -> tuple[list[float], dict[str, Any]] | None:
    rates = getattr(scheduler, "base_lrs", None)
    if not isinstance(rates, list):
        return None
    plain = {
        name: value
        for name, value in vars(scheduler).items()
        if isinstance(value, (int, float)) and math.isfinite(value) and name not in _PLACE and name[:1] != "_"
    }
    plain |= {name: getattr(scheduler, name) for name in _BY_PLACE.get(type(scheduler).__name__, ())}
    return [float(rate) for rate in rates], plain


def _put(group: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(group.get(name), torch.Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, torch.Tensor) else value


def _groups(optimizer: Any) -> Sequence[dict[str, Any]]:
    return getattr(_bare(optimizer, "optimizer"), "param_groups", ())


def _bare(thing: Any, name: str) -> Any:
    """Return what accelerate has wrapped."""
    return getattr(thing, name, thing)
