"""What a run that goes on logs is what an unbroken run logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.trainer.kit import Boom, Do, FailAt, Patient, Tokens, trainer
from vaultlayer_hf import Settings
from vaultlayer_hf.trainer.logged_loss import LossSums, sums_from

SCHEDULE: dict[str, Any] = {"max_steps": 14, "save_steps": 3, "logging_steps": 5}


def logged(run: Any) -> dict[int, tuple[float, ...]]:
    """Train, and return what was logged, by step: losses, and the mean of all at the end."""
    run.train()
    names = ("loss", "train_loss", "epoch")
    return {
        entry["step"]: tuple(entry[name] for name in names if name in entry)
        for entry in run.state.log_history
    }


@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_are_means_over_the_same_steps(accumulation: int, tmp_path: Path) -> None:
    """Broken off twice between a save and a log: the losses logged, and train_loss, are an unbroken run's."""
    # transformers 4 counts the steps of an epoch otherwise where its batches can't be divided by the accumulation.
    more = SCHEDULE | {"gradient_accumulation_steps": accumulation, "train_dataset": Tokens(8)}
    unbroken = logged(trainer(tmp_path / "u", cls=transformers.Trainer, **more))
    vault = tmp_path / "vault"
    for attempt, step in enumerate((4, 8)):
        with pytest.raises(Boom):
            trainer(
                tmp_path / str(attempt), resume=vault, callbacks=[FailAt(step), Patient(vault)], **more
            ).train()
    again = trainer(tmp_path / "again", resume=vault, **more)
    assert logged(again) == unbroken
    assert not {"_finalize_training", "log"} & set(vars(again)), "the Trainer is as it was"


def test_a_checkpoint_without_the_sums_logs_as_stock(tmp_path: Path) -> None:
    """Without the place in the data nothing is kept of the logs either: the run goes on all the same."""
    vault = tmp_path / "vault"
    settings = Settings(vault=str(vault), exact_data="off")
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=settings, callbacks=[FailAt(8), Patient(vault)], **SCHEDULE).train()
    unbroken = trainer(tmp_path / "u", **SCHEDULE)
    again = trainer(tmp_path / "b", resume=vault, **SCHEDULE)
    assert logged(again)[10] != logged(unbroken)[10]
    assert again.state.global_step == SCHEDULE["max_steps"]


def test_sums_of_a_later_version_are_left_alone() -> None:
    """What a later version may keep besides ends no start: the logs are stock's then."""
    now = {"pending": 1.0, "total": 2.0, "logged_at": 3}
    assert sums_from(now) == LossSums(1.0, 2.0, 3)
    assert sums_from({**now, "of_experts": 0.5}) is None
    assert sums_from(None) is None


class Stream(torch.utils.data.IterableDataset[Any]):
    """Ten rows without a length."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for row in torch.arange(160).reshape(10, 16) % 64:
            yield {"input_ids": row, "labels": row}


def test_all_callbacks_see_the_epoch_of_an_unbroken_run(tmp_path: Path) -> None:
    """Of a stream the Trainer counts epochs anew behind a resume; callbacks ahead of ours are told the right ones."""

    def seen(folder: str, *callbacks: Any) -> dict[int, float]:
        epochs: dict[int, float] = {}
        run = trainer(
            tmp_path / folder,
            resume=None if folder == "u" else tmp_path / "vault",
            callbacks=[
                Do(on_step_end=lambda state: epochs.update({state.global_step: state.epoch})),
                *callbacks,
            ],
            train_dataset=Stream(),
            **SCHEDULE,
        )
        if callbacks:
            with pytest.raises(Boom):
                run.train()
        else:
            run.train()
        return epochs

    unbroken = seen("u")
    assert unbroken[7] > 1, "there is more than one pass"
    before = seen("a", FailAt(8), Patient(tmp_path / "vault"))
    assert before | seen("b") == unbroken
