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


def _note(path: Path, held: Any) -> None:
    """Note what is so at the first step of a start."""
    if not path.exists():
        path.write_text(str(held))


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


class _Phases(TrainerCallback):
    """Goes over to its second phase at step 3, with another weight, and would stop the training late in it."""

    def __init__(self) -> None:
        self.second, self.weight = False, 1.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            self.second, self.weight = True, 0.5
        if self.second and state.global_step > STEPS:
            control.should_training_stop = True


def test_what_has_come_true_when_a_signal_stops_the_training_is_state(tmp_path: Path) -> None:
    """That a process was told to end is no stop of the script's: what its callbacks hold by then comes back whole."""
    for step in (3, 0):
        phases, noted = _Phases(), tmp_path / f"{step}"
        began = Do(
            on_step_begin=lambda state, noted=noted, phases=phases: _note(
                noted, (state.global_step, phases.second, phases.weight)
            ),
            on_step_end=lambda state, at=step: (
                state.global_step == at and signal.raise_signal(signal.SIGTERM)
            ),
        )
        run = trainer(tmp_path / "o", resume=tmp_path / "v", callbacks=[phases, began])
        with pytest.raises(SystemExit) if step else nullcontext():
            run.train()
    assert noted.read_text() == "(3, True, 0.5)"
    assert run.state.global_step == STEPS
