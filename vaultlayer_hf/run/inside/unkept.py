"""Says that nothing is kept, at the first save that a training misses: one that no Trainer and no Checkpointer begins.

`vl run` puts a vault into a Trainer, and a Checkpointer has one. Any other loop, one that the script imports from
elsewhere for instance, steps its optimizer and leaves no trace in a vault. That is said while hours can still be saved.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from vaultlayer_hf.run.report import INSERT_VARIABLE, report

FIRST_SAVE = 60.0
"""Seconds of training behind which a first checkpoint is missed."""


class UnkeptTraining:
    """Counts the steps of optimizers until a training is reported, or until one is missed.

    Args:
        clock: seconds, ever growing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin: float | None = None
        self._over = False
        self._steps = 0

    def stepped(self, *_: Any) -> None:
        """Note a step of an optimizer; says once that nothing is kept, where it is time."""
        if self._over:  # torch goes through its hooks while it calls this one: none may be removed here
            return
        self._over = report.trains or os.environ.get(INSERT_VARIABLE, "1") == "0"
        if self._over:
            return
        self._steps += 1
        if self._begin is None:
            self._begin = self._clock()
        if self._clock() - self._begin < FIRST_SAVE:
            return
        self._over = True
        if report.folder is not None and report.rank == 0:
            self._say()

    def _say(self) -> None:
        message = (
            f"nothing is kept: {self._steps} steps of an optimizer are done, and no transformers.Trainer and no "
            "Checkpointer trains here, so nothing is saved to the vault and a restart begins anew: see `vl init`"
        )
        report.note("vault", event="notice", message=message, step=self._steps)
        sys.stderr.write(f"[vaultlayer] {message}\n")


def install() -> None:
    """Watch the optimizers of this process. Imported once torch.optim.optimizer is there."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(UnkeptTraining().stepped)
