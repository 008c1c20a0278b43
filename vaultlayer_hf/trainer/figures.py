"""The vault's figures in the Trainer's own logs, so that they reach ``report_to``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class FiguresCallback(TrainerCallback):
    """Adds figures to each log of training steps. It has to stand ahead of the callbacks that report logs.

    Only to those logs: the dicts of evaluate() and train() go back to the script, and stay as they are.
    """

    def __init__(self, figures: Callable[[], dict[str, float]]) -> None:
        self._figures = figures

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
