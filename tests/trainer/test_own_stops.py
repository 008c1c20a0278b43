"""What a script's own objects note of a process's end isn't carried: each start would stop at its first step."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.trainer.kit import STEPS, Do, Recorder, trainer


class Stops(TrainerCallback):
    """Ends the training when a signal has come, as scripts for Slurm do: noted in an attribute, a list and a global."""

    def __init__(self) -> None:
        self.told = False
        signal.signal(signal.SIGTERM, self.handle)

    def handle(self, number: int, frame: Any) -> None:
        self.told = True
        NOTED.append(number)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self.told or bool(NOTED)


NOTED: list[int] = []


def test_what_a_handler_of_signals_has_noted_is_not_carried(tmp_path: Path) -> None:
    """That one process was told to end doesn't have the next one stop at its first step."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        for step in (3, 0):
            NOTED.clear()
            ends = Do(
                on_step_end=lambda s, at=step: s.global_step == at and signal.raise_signal(signal.SIGTERM)
            )
            run = trainer(tmp_path / "a", resume=tmp_path / "vault", callbacks=[ends, Stops()])
            with pytest.raises(SystemExit) if step else nullcontext():
                run.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.state.global_step == STEPS


class _Hours(TrainerCallback):
    """Saves and stops once the hours of a job are over; notes when it has warmed up, and when it stopped."""

    def __init__(self) -> None:
        self.over, self.warm, self.reason = False, False, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.warm = self.warm or state.global_step >= 2
        if state.global_step in (3, 6):
            self.over, self.reason = True, "the hours are over"
        if self._is_over() and self.warm:
            control.should_save = control.should_training_stop = True

    def _is_over(self) -> bool:
        return self.over and bool(self.reason)


def _note(path: Path, warm: bool) -> None:
    """Note what is so at the first step of a start."""
    if not path.exists():
        path.write_text(str(warm))


def test_a_stop_is_no_state(tmp_path: Path) -> None:
    """A note that a job's hours are over ends with the process, and each start trains on; what was so before stays."""
    reached = []
    for start in range(3):
        hours, noted = _Hours(), tmp_path / f"warm-{start}"  # a file: a list would come back itself
        began = Do(on_step_begin=lambda state, hours=hours, noted=noted: _note(noted, hours.warm))
        run = trainer(tmp_path / "o", resume=tmp_path / "v", callbacks=[hours, began])
        notes = Recorder(run)
        run.train()
        reached += [noted.read_text() == "True", run.state.global_step]
        assert not notes.of("inexact")
    assert reached == [False, 3, True, 6, True, 8]
