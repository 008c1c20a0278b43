"""Schedules of the learning rate: their names, and what is said where one can't take a checkpoint's place.

``load_state_dict`` of torch takes what another class has saved, or ends in an error such as ``KeyError: 'lr_lambdas'``,
which says neither that it is about a schedule nor about which. And some schedules keep numbers of theirs in the
optimizer's groups, which a checkpoint replaces: without these the next step would end in such an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FunctionType
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.state.asked import Asked, read_asked


def schedules_name(schedulers: Iterable[Any]) -> str:
    """Return the class names of schedules, without accelerate's wrapper around each; empty where there is none."""
    return "+".join(type(unwrapped_schedule(one)).__name__ for one in schedulers if one is not None)


@contextmanager
def loading_schedules(
    optimizers: Iterable[Any], schedulers: Iterable[Any], folder: Path, *, added: Iterable[Any] = ()
) -> Iterator[None]:
    """Around the load of a checkpoint folder: name the schedules where they are other ones than the folder's.

    Args:
        optimizers, schedulers: of the training that goes on.
        folder: the checkpoint's.
        added: further schedules, in files of their own: who loads one says by its file what it raises.

    Raises OtherRunError in the place of what a schedule raises, and where the load has taken out of the optimizer's
    groups what a schedule reads there.
    """
    schedulers = [one for one in schedulers if one is not None]
    read = _GroupsRead(optimizers, dict.fromkeys([*schedulers, *added]))
    try:
        yield
    except Exception as error:
        for one in (error, error.__cause__):  # who loads may have said already which file it was
            if (
                isinstance(one, Exception)
                and (other := _refused_by_schedule(one, schedulers, folder)) is not None
            ):
                raise other from one
        raise
    read.check(folder)


def _refused_by_schedule(error: Exception, schedulers: list[Any], folder: Path) -> OtherRunError | None:
    """Return the error to raise in the place of one that a schedule has raised as it was loaded from a folder.

    None where it came from elsewhere.
    """
    known = {id(unwrapped_schedule(one)) for one in schedulers}
    if not any(
        frame.f_code.co_name == "load_state_dict" and id(frame.f_locals.get("self")) in known
        for frame, _ in walk_tb(error.__traceback__)
    ):
        return None
    return _other_schedule(folder, schedulers, f"{type(error).__name__}: {error}")


class _GroupsRead:
    """What schedules have in the groups of their optimizers, noted ahead of a load that replaces these.

        read = _GroupsRead(optimizers, schedulers)
        load()
        read.check(folder)

    OneCycleLR, for one, keeps its highest rate there, as ``max_lr``. The groups of a checkpoint that was made with
    another schedule don't have it, and torch takes them as they come.

    Args:
        optimizers, schedulers: of a training; wrappers of accelerate are looked through.
    """

    def __init__(self, optimizers: Iterable[Any], schedulers: Iterable[Any]) -> None:
        inner = [getattr(one, "optimizer", one) for one in optimizers if one is not None]
        # What an optimizer's own groups always hold isn't a schedule's: see check_optimizers.
        self._groups = [(one, {*getattr(one, "defaults", ())}) for one in inner]
        self._schedulers = [one for one in schedulers if one is not None]
        self._before = self._names()

    def check(self, folder: Path) -> None:
        """Raise OtherRunError where what a schedule reads there is gone behind the load of a checkpoint folder."""
        gone = {name for then, now in zip(self._before, self._names(), strict=False) for name in then - now}
        for one in self._schedulers:
            if lacking := sorted(gone & _texts_of(unwrapped_schedule(one))):
                raise _other_schedule(
                    folder, [one], f"the optimizer's groups there have no {', '.join(lacking)}"
                )

    def _names(self) -> list[set[str]]:
        return [set(group) - own for one, own in self._groups for group in getattr(one, "param_groups", ())]


def _other_schedule(folder: Path, schedulers: Iterable[Any], why: str) -> OtherRunError:
    asked = (read_asked(folder) or Asked()).arguments
    then = asked.get("schedule") or asked.get("scheduler") or ""
    return OtherRunError(
        f"{folder.name} holds the place in {f'the schedule {then}' if then else 'another schedule'} of the learning "
        f"rate, and this run begins with {schedules_name(schedulers)}, which can't take it ({why}): start with the "
        "same schedule. Where a script exchanges its schedule on the way, each start makes the first one again: make "
        "one that holds both, such as SequentialLR, ahead of the training. Or load the checkpoint's model in the "
        "script and name a new vault. Nothing was trained"
    )


def _texts_of(scheduler: Any) -> set[str]:
    """Return the texts in the code of a schedule's class, and of schedules within it: names in groups among them."""
    inside = [one for one in getattr(scheduler, "_schedulers", ()) if one is not scheduler]
    # What all schedules of torch have in common sets the rate that it begins with, and doesn't need it again.
    classes = [cls for cls in type(scheduler).__mro__ if cls not in (LRScheduler, object)]
    own = {text for cls in classes for text in _texts_in_class(cls)}
    return own.union(*(_texts_of(unwrapped_schedule(one)) for one in inside))


@functools.cache
def _texts_in_class(cls: type) -> frozenset[str]:
    members = (getattr(one, "__func__", one) for one in vars(cls).values())
    codes = (one.__code__ for one in members if isinstance(one, FunctionType))
    return frozenset(text for code in codes for text in _texts_in(code))


def _texts_in(code: CodeType) -> Iterator[str]:
    for one in code.co_consts:
        if isinstance(one, str):
            yield one
        elif isinstance(one, CodeType):
            yield from _texts_in(one)


def unwrapped_schedule(scheduler: Any) -> Any:
    """Return a schedule without accelerate's wrapper."""
    return getattr(scheduler, "scheduler", scheduler)
