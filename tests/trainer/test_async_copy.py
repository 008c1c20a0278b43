"""A save beside the training holds the state of its step, whatever changes that behind it; what fails is said."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

from tests.kit.copies import slow_copy
from tests.trainer.async_kit import MARKS, asked, contents, local, lost_saves
from tests.trainer.kit import Do, Recorder, Tokens, big_model, judged_by, steps_of, trainer
from vaultlayer_hf.state.capture import copying
from vaultlayer_hf.state.capture.recorded import Recorded
from vaultlayer_hf.state.capture.writing import FileWriter
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.vault.workspace import workspace

pytestmark = MARKS


def test_the_step_waits_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is slower than the forward and backward pass holds what the state was at the save."""
    out = tmp_path / "out"
    trainer(out, cls=transformers.Trainer, model=big_model(), max_steps=6).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    slow_copy(monkeypatch)
    trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=6).train()
    assert contents(out) == expected


def test_a_step_that_does_not_wait_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything in front of the step, a torn copy is noticed: it is no checkpoint, and is never committed."""
    slow_copy(monkeypatch)
    monkeypatch.setattr(copying.StateCopy, "hold_device", lambda self: None)
    out = tmp_path / "out"
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=5)
    heard = Recorder(run)
    run.train()
    (lost,) = lost_saves(heard)
    assert "checkpoint-4" in lost  # that of step 2 was over before its save returned
    assert "the optimizer stepped before the copy was over" in lost
    assert local(out) == [2, 5]
    assert set(steps_of(tmp_path / "vault")) <= {2, 5}


class Average(TrainerCallback):
    """Swaps other weights in for the time between two events, in a way that torch doesn't count as a change."""

    def __init__(self, event: str) -> None:
        setattr(self, event, self._swap)

    def _swap(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for parameter in kwargs["model"].parameters():
            parameter.data.add_(1e-3)


@pytest.mark.parametrize("event", ["on_step_begin", "on_pre_optimizer_step", "on_epoch_end"])
def test_callbacks_that_change_the_weights(
    event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another callback does to the weights behind a save isn't in that save's files."""
    out = tmp_path / "out"
    more = {"max_steps": 6, "save_steps": 2}
    trainer(out, cls=transformers.Trainer, model=big_model(), callbacks=[Average(event)], **more).train()
    expected = contents(out)
    shutil.move(out, tmp_path / "stock")
    slow_copy(monkeypatch, 0.1)
    trainer(
        out, resume=asked(tmp_path / "vault"), model=big_model(), callbacks=[Average(event)], **more
    ).train()
    assert contents(out) == expected


class EndsWithTheEpoch(TrainerCallback):
    """Ends the training at the end of its first epoch."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = True


def test_the_best_one_is_there_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends a training while its best checkpoint is being written ends it with the weights of that one."""
    more = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "eval_dataset": Tokens(4),
        "train_dataset": Tokens(8),
        "callbacks": [EndsWithTheEpoch()],
    }
    out = tmp_path / "out"
    write = FileWriter.write_file

    def late(self: FileWriter, one: Recorded, copy_of: Any) -> Any:
        time.sleep(0.3)
        return write(self, one, copy_of)

    monkeypatch.setattr(FileWriter, "write_file", late)
    loaded = []
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), **more)
    load = run._load_best_model
    run._load_best_model = lambda: (loaded.append((out / "checkpoint-4").is_dir()), load())
    run.train()
    assert run.state.global_step == 4
    assert run.state.best_model_checkpoint == str(out / "checkpoint-4")
    assert loaded == [True]


def test_what_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """A file that can't be written costs that checkpoint; the next save is stock's, those after it are beside again."""
    write, torn = Capture.run, []

    def failing(self: Capture, writer: FileWriter) -> None:
        if not torn:
            torn.append(self.target.name)
            raise OSError("no such luck")
        write(self, writer)

    monkeypatch.setattr(Capture, "run", failing)
    out = tmp_path / "out"
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), max_steps=9)
    heard = Recorder(run)
    run.train()
    (lost,) = lost_saves(heard)
    assert "no such luck" in lost
    assert torn == ["checkpoint-2"]
    assert local(out) == [4, 6, 8, 9]
    assert len(copies) == 3  # of the steps 2, 6 and 8
    assert not list(workspace(out).glob("pending-*"))


def test_a_best_checkpoint_that_is_lost_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """That the best one is lost shows behind the next evaluation, and what that has found is compared without it."""
    write, evaluated = Capture.run, threading.Event()

    def failing(self: Capture, writer: FileWriter) -> None:
        if self.target.name == "checkpoint-4":
            evaluated.wait(30)
            raise OSError("no such luck")
        write(self, writer)

    monkeypatch.setattr(Capture, "run", failing)
    out = tmp_path / "out"
    seen = Do(on_evaluate=lambda state: evaluated.set() if state.global_step == 6 else None)
    more = judged_by({2: 3.0, 4: 1.0, 6: 2.0, 8: 4.0}, seen)
    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), **more)
    heard = Recorder(run)
    run.train()
    assert copies
    assert "checkpoint-4" in lost_saves(heard)[0]
    assert (run.state.best_metric, run.state.best_global_step) == (2.0, 6)
    assert run.state.best_model_checkpoint == str(out / "checkpoint-6")
    (said,) = [event.message for event in heard.of("notice") if "couldn't be saved" in event.message]
    assert said.startswith("the best (loss 1 at step 4)")
    assert said.endswith("takes checkpoint-6 (loss 2)")


def test_a_nan_is_found_in_the_copy(tmp_path: Path, copies: list[int]) -> None:
    """Whether the state is finite is found out beside the training, and said of the checkpoint that it is of."""

    def poison(state: Any) -> None:
        if state.global_step == 4:
            with torch.no_grad():
                next(run.model.parameters()).fill_(float("nan"))

    run = trainer(
        tmp_path / "out",
        resume=asked(tmp_path / "vault"),
        model=big_model(),
        callbacks=[Do(on_step_end=poison)],
    )
    heard = Recorder(run)
    run.train()
    assert copies
    (said,) = [event.message for event in heard.of("notice") if "isn't finite" in event.message]
    assert said.startswith("checkpoint-4 isn't finite")
