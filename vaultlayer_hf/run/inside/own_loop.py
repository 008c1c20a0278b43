"""Names a Trainer whose ``train()`` is a loop of its own, at its first step: `vl run` can't keep what it trains.

The vault is put in where ``transformers.Trainer.train`` is entered. A subclass that never calls it, as RL trainers do,
saves and fires the Trainer's events all the same. Nothing can tell such a loop where to go on from, so it is said while
there is something to be done about it, not at the end of days.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vaultlayer_hf.run.report import INSERT_VARIABLE, report


class OwnLoopCallback(TrainerCallback):
    """Says at the first step that nothing is kept, where that step isn't one of ``transformers.Trainer.train``.

    Args:
        name: of the Trainer's class.
    """

    def __init__(self, name: str) -> None:
        self._name, self._said = name, False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if report.watched or self._said:
            return
        self._said = report.trains = True
        if os.environ.get(INSERT_VARIABLE, "1") == "0" or not state.is_world_process_zero:
            return
        message = (
            f"nothing is kept: {self._name}.train() is a loop of its own, which never calls transformers.Trainer's, so "
            "nothing could tell it where to go on from, and after a death it begins at step 0. Keep such a loop with "
            "a Checkpointer (vaultlayer_hf.Checkpointer: resume, step, finish)"
        )
        report.note("vault", event="notice", message=message, step=state.global_step)
        sys.stderr.write(f"[vaultlayer] {message}\n")
