"""What stands ahead of all other callbacks of a Trainer: what they are told is right already when they are told it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

PREFIX = "vault/"
"""What the names of our figures begin with."""


class FirstCallback(TrainerCallback):
    """Adds the vault's figures to each log of training steps, so that they reach ``report_to``; and counts epochs.

    And goes on behind a pass that had no batch left at a resume: the Trainer takes that for the end of the training.
    Only to those logs: the dicts of evaluate() and train() go back to the script, and stay as they are.

    Args:
        figures: returns the figures.
        begin_epoch: told that a pass through the data begins, ahead of what others set for it.
        count_epoch: sets the state's epoch at the end of a step, where the Trainer's own count is another run's.
        had_no_batch: tells whether the pass that ends was gone on with behind its last batch.
    """

    def __init__(
        self,
        figures: Callable[[], dict[str, float]],
        begin_epoch: Callable[[], None],
        count_epoch: Callable[[TrainingArguments, TrainerState], None],
        had_no_batch: Callable[[], bool],
    ) -> None:
        self._figures, self._begin_epoch = figures, begin_epoch
        self._count_epoch, self._had_no_batch = count_epoch, had_no_batch

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._begin_epoch()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._count_epoch(args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._had_no_batch():
            control.should_training_stop = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(logs, dict) and "loss" in logs:
            logs.update(self._figures())


class WithoutFiguresCallback(TrainerCallback):
    """Takes the figures out of each log again. It has to stand right ahead of the callback that prints logs."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(logs, dict):
            for name in [name for name in logs if str(name).startswith(PREFIX)]:
                del logs[name]


def ahead_of_printing(callbacks: Sequence[Any]) -> list[Any]:
    """Return a Trainer's callbacks with the figures taken out of logs ahead of the one that prints them.

    A line on the console has room for the loss, not for six figures more; reporters stand ahead of the printing.
    """
    kinds = (PrinterCallback, ProgressCallback)
    printing = next((index for index, one in enumerate(callbacks) if isinstance(one, kinds)), len(callbacks))
    return [*callbacks[:printing], WithoutFiguresCallback(), *callbacks[printing:]]
