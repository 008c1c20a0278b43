"""A training loop as it was found in a script: where its steps end, and which loops give the batches and the epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert.trainings import Trainings


class UnclearError(Exception):
    """The loop isn't understood; the message says what in it."""


@dataclass
class Call:
    """A call of a function of the script's own, on the way from the step to the outermost loop.

    Attributes:
        function: the FunctionDef.
        call: where it is called.
    """

    function: Any
    call: Any


@dataclass
class Loop:
    """A training loop.

    Attributes:
        steps: the calls that step the optimizer.
        suite: the IndentedBlock whose end is the end of a step.
        tail: the statements of that suite from the step on.
        condition: the ``if`` that lets only each Kth batch make a step; None where each does.
        inner: the loop around the step, For or While.
        outer: the loop around that one, the epochs; None where there is none.
        calls: the functions between the step and the outermost loop, from the inside.
        crossed: how many of ``calls`` lie between the step and ``inner``.
        optimizer: how the optimizer is called where it steps; of several the first.
        optimizers: all of them.
        by_hand: the model whose parameters the script changes by itself, where it has no optimizer; else ``""``.
        only_if: the condition that the step is given, and under which alone it is one; ``""``: each time.
        phase: the condition under which a pass trains, where an epoch has several (``phase == "train"``); else ``""``.
        sync: whether batches are gathered by ``accelerator.accumulate``.
        trainings: where the script trains several times; else None.
    """

    steps: list[Any]
    suite: Any
    tail: list[Any]
    condition: Any
    inner: Any
    outer: Any = None
    calls: list[Call] = field(default_factory=list)
    crossed: int = 0
    optimizer: str = ""
    sync: bool = False
    optimizers: list[str] = field(default_factory=list)
    phase: str = ""
    by_hand: str = ""
    only_if: str = ""
    trainings: Trainings | None = None

    @property
    def top(self) -> Any:
        """The outermost loop."""
        return self.outer if self.outer is not None else self.inner
