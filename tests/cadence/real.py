"""A real run with ``auto``, whose saves keep under 1 % of the time: ``python -m tests.cadence.real [SECONDS]``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tests.kit.inside import training_of
from tests.trainer.kit import Recorder, big_model, model, trainer
from vaultlayer_hf import Settings


class Until(TrainerCallback):
    """Ends the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun = seconds, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = time.monotonic() - self.begun > self.seconds


def run(
    folder: Path, seconds: float, save_every: str, max_loss: float | None = None, *, big: bool = False
) -> tuple[Any, Recorder]:
    """Train for some seconds on the vault in a folder; return its training on the vault and its events."""
    made = trainer(
        folder / "output",
        model=big_model() if big else model(),
        resume=Settings(vault=str(folder / "vault"), save_every=save_every, max_loss=max_loss),
        callbacks=[Until(seconds)],
        save_strategy="no",
        max_steps=10**6,
    )
    recorder = Recorder(made)
    made.train()
    return training_of(made), recorder


def main() -> None:
    """Print what saves have cost, and why they came when they came."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 240.0
    with tempfile.TemporaryDirectory() as folder:
        training, recorder = run(Path(folder), seconds, "auto", max_loss=seconds / 6, big=True)
    for event in recorder.of("cadence"):
        print(event.message)
    commits = len(recorder.of("commit"))
    print(f"{commits} commits in {seconds:.0f} s, a save stalls for {training.pacer.stall * 1000:.0f} ms, "
          f"saves took {training.pacer.share:.3%} of the time")  # fmt: skip
    sys.exit(0 if training.pacer.share < 0.01 and commits > 3 else 1)


if __name__ == "__main__":
    main()
