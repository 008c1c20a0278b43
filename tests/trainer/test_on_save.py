"""What callbacks of a script's own do behind the Trainer's save: an unbroken run has done it by the next step."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, state_of, trainer, weights


class Samples(TrainerCallback):
    """Draws at each save, as one that writes samples of the model does, and goes by how often it did."""

    def __init__(self) -> None:
        self.saves = 0

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saves += 1
        torch.rand(3)

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.2 * self.saves


def test_what_is_drawn_and_counted_behind_a_save_comes_back(tmp_path: Path) -> None:
    """Random numbers and counts are an unbroken run's behind a resume, over two breaks, unsaid."""
    found, vault = [], tmp_path / "vault"
    for place, fails in (("u", 0), ("a", 3), ("b", 5), ("c", 0)):
        samples = Samples()
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            callbacks=[samples, *([FailAt(fails), Patient(vault)] if fails else [])],
        )
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        found.append((weights(run.model), samples.saves))
        assert seen is None or not seen.of("inexact"), [event.message for event in seen.of("inexact")]
    assert found[0] == found[-1]


def test_a_last_step_that_is_saved_twice_is_the_end(tmp_path: Path) -> None:
    """The second save of a step has another folder in the vault: the run is over all the same."""

    class Twice(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = True

    trainer(tmp_path / "o", resume=tmp_path / "v", callbacks=[Twice()]).train()
    assert state_of(tmp_path / "v").finished == 8
    assert [commit.name for commit in state_of(tmp_path / "v").commits][-1].startswith("checkpoint-8.")
