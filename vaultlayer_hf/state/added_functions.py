"""Functions that a schedule is given on its way: ``lr_lambdas``, one for each group of parameters of its optimizer.

A schedule's own state has its rates, and no functions: so these are found again by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vaultlayer_hf.state.named_functions import find_function, name_function
from vaultlayer_hf.state.schedules import unwrapped_schedule

Added = dict[str, Any]
"""Of one schedule: ``first``, how many functions it began with, and ``functions``: a name, and how each is found."""


def with_functions(schedule: Any) -> Iterator[Any]:
    """Yield a schedule, and those within it, that have functions of their own for each group."""
    schedule = unwrapped_schedule(schedule)
    if isinstance(getattr(schedule, "lr_lambdas", None), list):
        yield schedule
    for one in getattr(schedule, "_schedulers", ()):
        yield from with_functions(one)


def added_functions(schedule: Any, first: Sequence[int]) -> list[Added]:
    """Return what came to the functions of a schedule, and of those within it.

    ``first``: how many each of ``with_functions`` has begun with.
    """
    return [
        {
            "first": begun,
            "functions": [kept_function(one, own.lr_lambdas[:begun]) for one in own.lr_lambdas[begun:]],
        }
        for own, begun in zip(with_functions(schedule), first, strict=False)
    ]


def kept_function(function: Any, earlier: Sequence[Any]) -> tuple[str, Any]:
    """Return a function's name for people, and what it is found by: the place of an earlier one, or its name.

    The latter is None where no start can find it.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    same = [number for number, one in enumerate(earlier) if one is function]
    return name, same[0] if same else name_function(function)


def without_those_there(schedule: Any, saved: Sequence[Added]) -> list[Added]:
    """Return of what was saved what a schedule of now hasn't got: a script may give some ahead of the training."""
    found = list(saved)
    for number, (one, kept) in enumerate(zip(with_functions(schedule), saved, strict=False)):
        there = max(len(one.lr_lambdas) - kept["first"], 0)
        found[number] = {**kept, "functions": kept["functions"][there:]}
    return found


def lost_function(saved: Sequence[Added]) -> str:
    """Return why not all of them can be brought back, in words; empty where they can."""
    lost = [name for one in saved for name, how in one["functions"] if how is None]
    if not lost:
        return ""
    return (
        f"the schedule's function {lost[0]}, which was added with them, holds objects or stands nowhere in the "
        "script's code, so no start can make it: use one that reads numbers alone"
    )


def give_functions(schedule: Any, saved: Sequence[Added]) -> None:
    """Give a schedule, and those within it, the functions that were saved. Raises LookupError."""
    for one, kept in zip(with_functions(schedule), saved, strict=False):
        for name, how in kept["functions"]:
            if isinstance(how, int) and how >= len(one.lr_lambdas):
                raise LookupError(name)
            one.lr_lambdas.append(one.lr_lambdas[how] if isinstance(how, int) else find_function(how))
