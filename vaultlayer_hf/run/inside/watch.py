"""Watches one training for `vl run`: signs of life, what is logged, and a loss that is nan or inf."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vaultlayer_hf.errors import VaultLayerError
from vaultlayer_hf.run.report import TRAINER, report

_IN_A_ROW = 2
"""Steps with a loss that is nan or inf before the training is ended: from one, a script may recover."""


class NonFiniteLossError(VaultLayerError):
    """The loss is nan or inf and stays so: what is trained from here on is lost."""


class TrainingMonitor(TrainerCallback):
    """Reports a training. The Trainer's ``logging_nan_inf_filter`` hides a nan, so the loss itself is looked at.

    On an accelerator the look is one step late: by then the value is there without waiting for it.
    """

    def __init__(self, vault: str | None) -> None:
        self._vault = vault
        self._now: torch.Tensor | None = None  # whether a loss of this step was nan or inf
        self._late: tuple[int, torch.Tensor] | None = None
        self._first: int | None = None
        self._stepped = False  # in this training
        self._count = 0

    def saw(self, loss: Any) -> None:
        """Look at the loss of one micro-batch."""
        report.beat()
        if isinstance(loss, torch.Tensor):
            bad = ~torch.isfinite(loss.detach()).all()
            self._now = bad if self._now is None else self._now | bad

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        report.watched = True
        report.note(
            "train",
            seam=TRAINER,
            output_dir=os.path.abspath(str(args.output_dir)),
            max_steps=state.max_steps,
            step=state.global_step,
            micro_batch=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            world_size=args.world_size,
            vault=self._vault,
            pid=os.getpid(),
        )
        report.beat(step=state.global_step, phase="start")
        self._stepped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        report.beat(step=state.global_step, phase="train")
        if not self._stepped:
            self._stepped = True
            report.note("first-step", step=state.global_step)
        now, self._now = self._now, None
        if now is None:
            return
        if now.device.type == "cpu":
            self._judge(state.global_step, bool(now))
            return
        if self._late is not None:
            self._judge(self._late[0], bool(self._late[1]))
        self._late = (state.global_step, now)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        report.beat()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        report.beat()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero:
            figures = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
            report.note("log", **{**figures, "step": state.global_step})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._late is not None:
            self._judge(self._late[0], bool(self._late[1]))
        if self._count:
            self._end()
        report.beat(phase="end")

    def _judge(self, step: int, bad: bool) -> None:
        if not bad:
            self._first, self._count = None, 0
            return
        self._first, self._count = self._first or step, self._count + 1
        if self._count >= _IN_A_ROW:
            self._end()

    def _end(self) -> None:
        report.note("nonfinite", step=self._first)
        raise NonFiniteLossError(f"the loss is nan or inf since step {self._first}")
