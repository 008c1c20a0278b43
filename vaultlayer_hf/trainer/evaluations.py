"""Evaluations with persistent workers: a run that goes on starts these workers without drawing a seed for them.

Torch draws it from the process's random numbers when a DataLoader starts its workers, so with persistent ones in the
first evaluation only. A run that goes on behind that one has to start them again, and would have drawn once more than
an unbroken run from there on: another dropout, another order of the next epoch.

What such workers have drawn from a generator of the data set's own stays in them, so that is said.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import DataLoader

from vaultlayer_hf.state.data.followed import (
    Opener,
    base_of,
    begin_following,
    end_following,
    workers_persist,
    workers_run,
)
from vaultlayer_hf.state.data.guard import Guard
from vaultlayer_hf.state.data.inner import Inner


class Evaluations:
    """Knows the loaders of a Trainer's evaluations whose workers persist.

    Args:
        handler: the Trainer's CallbackHandler: it is given each loader before that is opened.
        guard: of the training's following: at its end the handler is as it was.
        on_drawing: told, once, which random generators persistent workers draw from, in words.

    Attributes:
        owed: how many loaders, not opened here yet, had their workers in the run that this one goes on from.
    """

    def __init__(self, handler: Any, guard: Guard, on_drawing: Callable[[str], None]) -> None:
        self.owed = 0
        self._on_drawing: Callable[[str], None] | None = on_drawing
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._anew = False
        self._handler = handler
        handler.__dict__["_vaultlayer"] = lambda loader: guard.run(self._begins, loader)
        handler.__class__ = _reporting(type(handler))
        guard.at_end(self.end)

    def end(self) -> None:
        """Leave the handler as it was."""
        if self._handler.__dict__.pop("_vaultlayer", None) is not None:
            self._handler.__class__ = type(self._handler).__bases__[0]

    @property
    def count(self) -> int:
        """How many loaders have their workers, or would in an unbroken run; 0 where each evaluation has its own."""
        return 0 if self._anew else len(self._seen) + self.owed

    def _begins(self, loader: Any) -> None:
        base = base_of(loader)
        if not isinstance(base, DataLoader) or not workers_persist(base):
            return
        self._anew |= any(other is not base and other.dataset is base.dataset for other in self._seen)
        if base not in self._seen and self.owed and not workers_run(base):
            self.owed -= 1
            if base.generator is None:
                begin_following(base, _WithoutDrawing(base))
        if base not in self._seen:
            self._look_for_generators(base)
        self._seen.add(base)

    def _look_for_generators(self, base: DataLoader[Any]) -> None:
        if self._on_drawing is None:
            return
        with suppress(Exception):  # of objects of the script's own
            names = Inner(evaluation=base.dataset, collator=base.collate_fn).generators
            if names:
                self._on_drawing(
                    f"persistent workers draw from a random generator of the data of evaluations ({names[0]}), and no "
                    "checkpoint holds what they have drawn: behind a resume an evaluation may give other numbers than "
                    "an unbroken run's. Leave out dataloader_persistent_workers to have the same"
                )
                self._on_drawing = None


class _WithoutDrawing:
    """Has a DataLoader started once without a draw from the process's random numbers."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def open(self, plain: Opener) -> Iterator[Any]:
        end_following(self._base)
        self._base.generator = torch.Generator()
        try:
            return plain()
        finally:
            self._base.generator = None

    def hand_over(self) -> None:
        end_following(self._base)


_classes: dict[type, type] = {}


def _reporting(cls: Any) -> Any:
    """Return a class that a CallbackHandler of this class has meanwhile: it reports each evaluation's loader."""

    def get(self: Any) -> Any:
        return self.__dict__.get("eval_dataloader")

    def put(self: Any, loader: Any) -> None:
        self.__dict__["eval_dataloader"] = loader
        self.__dict__["_vaultlayer"](loader)

    if cls not in _classes:
        body = {"__module__": cls.__module__, "eval_dataloader": property(get, put)}
        _classes[cls] = type(cls.__name__, (cls,), body)
    return _classes[cls]
