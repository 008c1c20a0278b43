"""Epochs that are asked for, where a later start's steps have other numbers of samples than the checkpoint's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback
from transformers import Trainer as Stock

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, is_new, state_of, trainer
from vaultlayer_hf import VaultLayerCallback
from vaultlayer_hf.errors import OtherRunError
from vaultlayer_hf.trainer.asked_epochs import StepsOfPass, TrainedEpochs
from vaultlayer_hf.trainer.trainer import Trainer

ROWS, EPOCHS = 16, 4
needs_own_batch = pytest.mark.skipif(
    not is_new(), reason="transformers 4 goes on with the batch size of the checkpoint"
)


class Counting(Trainer):
    """Notes by step the rows that were trained on, each by its first three tokens."""

    seen: dict[int, list[tuple[int, ...]]]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = [tuple(row[:3].tolist()) for row in inputs["input_ids"]]
        self.__dict__.setdefault("seen", {}).setdefault(self.state.global_step + 1, []).extend(found)
        return super().training_step(model, inputs, *args, **kwargs)


def start(tmp_path: Path, batch: int, accumulation: int = 1, *callbacks: Any, **more: Any) -> Any:
    """A Trainer of four epochs of 16 rows."""
    named: dict[str, Any] = {
        "cls": Counting,
        "resume": str(tmp_path / "v"),
        "max_steps": -1,
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "save_steps": 1,
    }
    return trainer(
        tmp_path / "o", **{"callbacks": [*callbacks], "train_dataset": Tokens(ROWS), **named, **more}
    )


def break_off(tmp_path: Path, at: int, batch: int, accumulation: int = 1) -> None:
    """Train until the checkpoint of step ``at`` is committed."""
    with pytest.raises(Boom):
        start(tmp_path, batch, accumulation, FailAt(at + 1), Patient(tmp_path / "v")).train()


def times_trained(run: Any) -> Counter[Any]:
    """How often each row was trained on by the whole run: a Trainer's attributes come back with its checkpoint."""
    return Counter(row for rows in run.seen.values() for row in rows)


SIZES = [
    pytest.param(
        (2, 1), (4, 1), 18, 25, id="larger batch, behind the end by its steps", marks=needs_own_batch
    ),
    pytest.param((2, 1), (4, 1), 8, 20, id="larger batch", marks=needs_own_batch),
    pytest.param((4, 1), (2, 1), 6, 26, id="smaller batch", marks=needs_own_batch),
    pytest.param((2, 1), (2, 2), 18, 25, id="more accumulation, behind the end by its steps"),
    pytest.param((2, 2), (2, 1), 6, 26, id="less accumulation"),
]


@pytest.mark.parametrize(("then", "now", "at", "end"), SIZES)
def test_each_row_is_trained_on_once_an_epoch(
    then: tuple[int, int], now: tuple[int, int], at: int, end: int, tmp_path: Path
) -> None:
    """The epochs' rest is trained in this start's steps: no row is left out, and none comes once more."""
    break_off(tmp_path, at, *then)
    run = start(tmp_path, *now)
    run.train()
    assert (run.state.global_step, run.state.max_steps, run.state.epoch) == (end, end, EPOCHS)
    assert state_of(tmp_path / "v").finished == end
    counts = times_trained(run)
    assert set(counts.values()) == {EPOCHS}
    assert len(counts) == ROWS


def test_a_run_of_mixed_steps_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    """A later start has the sizes of its checkpoint, and its step is a number of these all the same not."""
    break_off(tmp_path, 18, 2)
    break_off(tmp_path, 22, 2, 2)
    run = start(tmp_path, 2, 2)
    run.train()
    assert (run.state.global_step, run.state.max_steps) == (25, 25)
    assert set(times_trained(run).values()) == {EPOCHS}


def test_a_run_that_is_over_stays_over_with_smaller_steps(tmp_path: Path) -> None:
    """Smaller steps are more of them, and no more epochs."""
    start(tmp_path, 2, 2).train()
    run = start(tmp_path, 2, 1)
    run.train()
    assert (run.state.global_step, "seen" in vars(run)) == (16, False)


def test_more_epochs_go_on_with_larger_steps(tmp_path: Path) -> None:
    """One epoch more than it was over with is eight rows a step of this start's."""
    start(tmp_path, 2, 2).train()
    run = start(tmp_path, 2, 4, num_train_epochs=EPOCHS + 1)
    run.train()
    assert (run.state.global_step, run.state.epoch) == (18, EPOCHS + 1)


def test_a_run_that_was_stopped_early_stays_so_with_smaller_steps(tmp_path: Path) -> None:
    """Only more epochs than it was to train then take it behind its early stop."""
    more: dict[str, Any] = {
        "eval_dataset": Tokens(4),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "metric_for_best_model": "eval_loss",
        "load_best_model_at_end": True,
        "learning_rate": 0.0,
    }
    start(tmp_path, 2, 2, EarlyStoppingCallback(1), **more).train()
    stopped = state_of(tmp_path / "v").finished
    assert stopped is not None
    assert stopped < 16
    run = start(tmp_path, 2, 1, EarlyStoppingCallback(1), **more)
    run.train()
    assert run.state.global_step == stopped


@pytest.mark.parametrize(("at", "refused"), [(18, True), (8, False)])
def test_a_script_that_pulls_itself_is_told(at: int, refused: bool, tmp_path: Path) -> None:
    """Where nobody can tell the Trainer's loop, what would be left out is an error or a warning with the remedy."""
    break_off(tmp_path, at, 2)
    vault = VaultLayerCallback(str(tmp_path / "v"))
    run = trainer(
        tmp_path / "o",
        cls=Stock,
        callbacks=[vault],
        train_dataset=Tokens(ROWS),
        max_steps=-1,
        num_train_epochs=EPOCHS,
        gradient_accumulation_steps=2,
        save_steps=1,
    )
    log = Recorder(vault)
    due = at + (EPOCHS * ROWS - 2 * at) // 4
    if refused:
        with pytest.raises(OtherRunError, match=rf"so nothing would be trained: .* max_steps={due}"):
            run.train(resume_from_checkpoint=vault.pull())
        return
    run.train(resume_from_checkpoint=vault.pull())
    assert any(f"max_steps={due}" in one.message for one in log.of("inexact"))


def test_a_number_that_says_where_a_checkpoint_is() -> None:
    """Asked for the checkpoint's step it answers with its place; it is a plain number in all else."""
    steps = StepsOfPass(8, 36, (2, 2))
    assert (36 // steps, 36 % steps) == (2, 2)
    assert (35 // steps, 35 % steps, steps, list(range(7, steps))) == (4, 3, 8, [7])
    assert type(steps + 1) is int


def test_a_folder_that_doesnt_say_how_far_it_is(tmp_path: Path) -> None:
    """It is left to the Trainer."""
    assert TrainedEpochs.read(tmp_path) is None
    (tmp_path / "trainer_state.json").write_text('{"global_step": 4, "epoch": null}')
    assert TrainedEpochs.read(tmp_path) is None
