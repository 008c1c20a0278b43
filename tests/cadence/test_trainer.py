"""The cadence in real runs of the Trainer: on top of its own saves, and without any."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.trainer.kit import Do, Patient, Recorder, steps_of, trainer
from vaultlayer_hf import Settings


@pytest.fixture(autouse=True)
def _short_flush(_no_vault_variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flush outlasts a test's patience."""
    monkeypatch.setenv("VAULTLAYER_FLUSH_TIMEOUT", "45")


def test_on_top_of_save_strategy(tmp_path: Path) -> None:
    """Steps that the Trainer saves by itself and those of save_every are all committed, each once."""
    settings = Settings(vault=str(tmp_path / "v"), save_every="3 steps", keep_last=None)
    made = trainer(
        tmp_path / "o", resume=settings, save_steps=4, callbacks=[Patient(tmp_path / "v")], max_steps=8
    )
    made.train()
    assert steps_of(tmp_path / "v") == [3, 4, 6, 8]


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_instead_of_save_strategy(tmp_path: Path, strategy: str) -> None:
    """With no saves of the Trainer's own, those of save_every and the end are committed, and no warning is said."""
    settings = Settings(vault=str(tmp_path / "v"), save_every="3 steps", keep_last=None)
    made = trainer(
        tmp_path / "o",
        resume=settings,
        save_strategy=strategy,
        callbacks=[Patient(tmp_path / "v")],
        max_steps=8,
    )
    recorder = Recorder(made)
    made.train()
    ends = {"no": [], "epoch": [5]}[strategy]
    assert steps_of(tmp_path / "v") == sorted({3, 6, 8, *ends})
    assert not [event.message for event in recorder.of("notice")]
    assert [event.message for event in recorder.of("cadence")] == ["a save every 3 steps, as save_every says"]


def test_by_the_clock(tmp_path: Path) -> None:
    """A cadence of a second saves about each second, whatever the steps take."""
    settings = Settings(vault=str(tmp_path / "v"), save_every="1s", keep_last=None)
    made = trainer(
        tmp_path / "o",
        resume=settings,
        save_strategy="no",
        callbacks=[Do(on_step_begin=lambda state: time.sleep(0.3)), Patient(tmp_path / "v")],
        max_steps=8,
    )
    made.train()
    steps = steps_of(tmp_path / "v")
    assert steps[-1] == 8
    assert 2 <= len(steps) <= 5, "8 steps of 0.3 s"
