"""Schedules of the learning rate: their names, and what is said where one can't take a checkpoint's place.

``load_state_dict`` of torch takes what another class has saved, or ends in an error such as ``KeyError: 'lr_lambdas'``,
which says neither that it is about a schedule nor about which.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb
from typing import Any

from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.state.asked import Asked, read_asked


def schedules_name(schedulers: Iterable[Any]) -> str:
    """Return the class names of schedules, without accelerate's wrapper around each; empty where there is none."""
    return "+".join(type(_inner(one)).__name__ for one in schedulers if one is not None)


def refused_by_schedule(error: Exception, schedulers: Iterable[Any], folder: Path) -> OtherRunError | None:
    """Return the error to raise in the place of one that a schedule has raised as it was loaded from a folder.

    None where it came from elsewhere.
    """
    schedulers = [one for one in schedulers if one is not None]
    known = {id(_inner(one)) for one in schedulers}
    if not any(
        frame.f_code.co_name == "load_state_dict" and id(frame.f_locals.get("self")) in known
        for frame, _ in walk_tb(error.__traceback__)
    ):
        return None
    asked = (read_asked(folder) or Asked()).arguments
    then = asked.get("schedule") or asked.get("scheduler") or ""
    return OtherRunError(
        f"{folder.name} holds the place in {f'the schedule {then}' if then else 'another schedule'} of the learning "
        f"rate, and this run begins with {schedules_name(schedulers)}, which can't take it ({type(error).__name__}: "
        f"{error}): start with the same schedule. Where a script exchanges its schedule on the way, each start makes "
        "the first one again: make one that holds both, such as SequentialLR, ahead of the training. Or load the "
        "checkpoint's model in the script and name a new vault. Nothing was trained"
    )


def _inner(scheduler: Any) -> Any:
    return getattr(scheduler, "scheduler", scheduler)
