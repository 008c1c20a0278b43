"""What is done at an epoch's end, where a resume begins behind the epoch's last step; and epochs that end early."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import tqdm
import transformers
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.trainer.kit import (
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    state_of,
    steps_of,
    trainer,
    wait_for,
    weights,
)
from vaultlayer_hf import Settings, SettingsError, VaultLayerCallback


class Ends(TrainerCallback):
    """Counts the epochs that end, and trains with another weight decay behind each."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        self.epochs.append(state.epoch)
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.3 * len(self.epochs)


class FailAtEnd(TrainerCallback):
    """Raises Boom at the end of the epoch that ends with a step, once that is committed."""

    def __init__(self, step: int, vault: Path) -> None:
        self.step, self.vault = step, vault

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            wait_for(lambda: self.step in steps_of(self.vault))
            raise Boom


class Short(TrainerCallback):
    """Ends each epoch behind its third step, or another one."""

    def __init__(self, last: int = 3) -> None:
        self.last, self.steps = last, 0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps == self.last:
            control.should_epoch_stop = True


class Stream(torch.utils.data.IterableDataset[Any]):
    """Twenty rows without a length: the Trainer goes through them until max_steps."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return map(Tokens(20).__getitem__, range(20))


def logged(run: Any) -> list[dict[str, Any]]:
    """What a run has logged of its steps, but for times."""
    left_out = ("runtime", "per_second", "vault/")
    return [
        {name: value for name, value in entry.items() if not any(part in name for part in left_out)}
        for entry in run.state.log_history
        if "train_loss" not in entry
    ]


@pytest.mark.parametrize("fails", [FailAt, FailAtEnd])
def test_what_is_done_at_an_epochs_end_is_done_behind_a_save_of_its_last_step(
    fails: Any, tmp_path: Path
) -> None:
    """Callbacks, the evaluation and the log are an unbroken run's, and nothing is done twice."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c"):
        ends, more = Ends(), []
        if place == "a":
            more = [FailAt(5), Patient(vault)] if fails is FailAt else [FailAtEnd(4, vault)]
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            train_dataset=Tokens(8),
            eval_dataset=Tokens(4),
            callbacks=[ends, *more],
            max_steps=-1,
            num_train_epochs=3,
            eval_strategy="epoch",
            logging_strategy="epoch",
        )
        seen = Recorder(run) if place != "u" else None
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        assert seen is None or not seen.of("inexact"), [event.message for event in seen.of("inexact")]
        found.append((weights(run.model), ends.epochs, logged(run)))
    assert found[0] == found[-1]


def test_an_evaluation_at_an_epochs_end_stops_the_training_ahead_of_another_step(tmp_path: Path) -> None:
    """Early stopping counts it, ends the run where an unbroken one ends, and a further start trains nothing."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c", "d"):
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            train_dataset=Tokens(8),
            eval_dataset=Tokens(4),
            callbacks=[EarlyStoppingCallback(1, 100.0), *([FailAtEnd(8, vault)] if place == "a" else [])],
            max_steps=-1,
            num_train_epochs=5,
            eval_strategy="epoch",
            metric_for_best_model="eval_loss",
        )
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        found.append((weights(run.model), run.state.global_step, logged(run)))
    assert found[0][1] == 8
    assert found[0] == found[2] == found[3]
    assert state_of(vault).finished == 8


@pytest.mark.parametrize("fails", [5, 7, 10])
def test_epochs_that_a_callback_ends_early(fails: int, tmp_path: Path) -> None:
    """As many epochs are trained, of the same batches and under the same numbers, and then the run is over."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c", "d"):
        short, ends = Short(), Ends()
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            train_dataset=Tokens(20),
            callbacks=[short, ends, *([FailAt(fails), Patient(vault)] if place == "a" else [])],
            max_steps=-1,
            num_train_epochs=4,
            save_steps=3 if fails == 7 else 2,
        )
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        found.append((weights(run.model), run.state.global_step, run.state.epoch, logged(run)))
        if place == "c":
            assert ends.epochs == pytest.approx([0.3, 1.3, 2.3, 3.3])
    assert found[0][1] == 12
    assert found[0] == found[2]
    assert found[2][:2] == found[3][:2]


def test_more_steps_are_asked_for_behind_an_epoch_that_a_callback_has_ended(tmp_path: Path) -> None:
    """The last step of the run before has ended that epoch, too, though the Trainer stopped the training with it."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Stream(), "lr_scheduler_type": "constant"}
    unbroken = trainer(tmp_path / "u", callbacks=[Short()], max_steps=9, **more)
    unbroken.train()
    trainer(tmp_path / "a", resume=vault, callbacks=[Short()], max_steps=6, **more).train()
    again = trainer(tmp_path / "b", resume=vault, callbacks=[Short()], max_steps=9, **more)
    again.train()
    assert again.state.global_step == unbroken.state.global_step == 9
    assert weights(again.model) == weights(unbroken.model)


def test_a_signal_as_a_callback_ends_the_epoch(tmp_path: Path) -> None:
    """Where a process is told to end at the step with which a callback ends an epoch, that epoch has ended."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(20), "max_steps": -1, "num_train_epochs": 4}
    unbroken = trainer(tmp_path / "u", callbacks=[Short()], **more)
    unbroken.train()

    def end(state: Any) -> None:
        if state.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        trainer(tmp_path / "a", resume=vault, callbacks=[Short(), Do(on_step_end=end)], **more).train()
    again = trainer(tmp_path / "b", resume=vault, callbacks=[Short()], **more)
    again.train()
    assert again.state.global_step == unbroken.state.global_step == 12
    assert weights(again.model) == weights(unbroken.model)


def test_an_owed_evaluation_is_the_only_one_at_a_start(tmp_path: Path) -> None:
    """With eval_on_start, too: the log and early stopping have each evaluation once, and the argument is as given."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c"):
        stopping = EarlyStoppingCallback(9)
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            train_dataset=Tokens(8),
            eval_dataset=Tokens(4),
            callbacks=[stopping, *([FailAtEnd(4, vault)] if place == "a" else [])],
            eval_on_start=True,
            eval_strategy="epoch",
            metric_for_best_model="eval_loss",
        )
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        evaluated = [entry["step"] for entry in run.state.log_history if "eval_loss" in entry]
        found.append((evaluated, stopping.early_stopping_patience_counter, weights(run.model)))
    assert found[0][0] == [0, 4, 8]
    assert found[0] == found[2]
    assert run.args.eval_on_start


@pytest.mark.parametrize("end", [8, 10], ids=["stopped early", "all epochs trained"])
def test_the_callback_alone_says_that_an_owed_end_ends_the_training(end: int, tmp_path: Path) -> None:
    """Stock trains one more step there, which isn't committed, and no epoch beyond those that are asked for."""
    place = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(20), "num_train_epochs": 2, "save_steps": 5}
    if end == 8:
        more = {"train_dataset": Tokens(8), "num_train_epochs": 5, "eval_strategy": "epoch"}
        more |= {"eval_dataset": Tokens(4), "metric_for_best_model": "eval_loss"}

    def made(folder: str, vault: VaultLayerCallback, *callbacks: Any) -> Any:
        ending = EarlyStoppingCallback(1, 100.0) if end == 8 else Short(5)
        callbacks = (vault, ending, *callbacks)
        return trainer(
            tmp_path / folder, cls=transformers.Trainer, callbacks=[*callbacks], max_steps=-1, **more
        )

    vault = VaultLayerCallback(place)
    first = made("a", vault, FailAtEnd(end, place))
    with pytest.raises(Boom):
        first.train(resume_from_checkpoint=vault.pull())
    vault.close()

    vault = VaultLayerCallback(place)
    again = made("b", vault)
    seen = Recorder(vault)
    folder = vault.pull()
    assert vault.finished is None
    assert again.train(resume_from_checkpoint=folder).global_step == end + 1
    assert [event.fields.get("step") for event in seen.of("notice") if "one more step" in event.message] == [
        end
    ]
    assert (steps_of(place)[-1], state_of(place).finished) == (end, end)


class Bar(TrainerCallback):
    """Shows a bar for each epoch, which is made as the epoch begins."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.bar = tqdm.tqdm(total=4, disable=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            self.bar.set_postfix(loss=logs["loss"])

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.bar.close()


def test_a_callback_that_fails_at_an_owed_end_is_named_and_ends_nothing(tmp_path: Path) -> None:
    """What it goes by was made as the epoch began, in another process; the others and the evaluation do their part."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c"):
        ends = Ends()
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else vault,
            train_dataset=Tokens(8),
            eval_dataset=Tokens(4),
            callbacks=[Bar(), ends, *([FailAt(5), Patient(vault)] if place == "a" else [])],
            eval_strategy="epoch",
            logging_strategy="epoch",
        )
        seen = Recorder(run) if place == "c" else None
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        found.append((weights(run.model), ends.epochs, logged(run)))
    assert seen is not None
    said = [event.message for event in seen.of("inexact")]
    assert [one.partition(" raised AttributeError: ")[0] for one in said] == [
        "Bar.on_epoch_end",
        "Bar.on_log",
    ]
    assert found[0] == found[2]


class Refuses(TrainerCallback):
    """Raises an error of this package at the end of the first epoch, where that is owed."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise SettingsError("no more")


class Pruned(Exception):
    """As a tuner ends a trial by one."""


class Prunes(TrainerCallback):
    """Ends a trial by what the first epoch's evaluation finds, where that is owed."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise Pruned


class Guards(TrainerCallback):
    """Ends a training whose metric is too low, by an error of Python's."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise ValueError("metric too low")


class Lacks(TrainerCallback):
    """Fails by the same kind of error in what it calls, since a list that the epoch fills is empty."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            max([])


@pytest.mark.parametrize(
    ("callback", "error"), [(Refuses, SettingsError), (Prunes, Pruned), (Guards, ValueError)]
)
def test_what_is_raised_on_purpose_passes_an_owed_end(
    tmp_path: Path, callback: type[TrainerCallback], error: type[Exception]
) -> None:
    """An error of this package, of a class of its own, or by the script's own raise ends the training there, too."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(8), "eval_dataset": Tokens(4), "eval_strategy": "epoch"}
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[FailAt(5), Patient(vault)], **more).train()
    with pytest.raises(error):
        trainer(tmp_path / "b", resume=vault, callbacks=[callback()], **more).train()


def test_an_error_of_what_a_callback_calls_is_left_out_at_an_owed_end(tmp_path: Path) -> None:
    """It is no raise of the script's own."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(8), "eval_dataset": Tokens(4), "eval_strategy": "epoch"}
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[FailAt(5), Patient(vault)], **more).train()
    log = Recorder(run := trainer(tmp_path / "b", resume=vault, callbacks=[Lacks()], **more))
    run.train()
    assert any("Lacks.on_evaluate raised ValueError" in one.message for one in log.of("inexact"))


def test_an_owed_log_leaves_out_what_the_checkpoint_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of checkpoints of earlier releases: the rate that the Trainer would log there is the next step's."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(8), "logging_strategy": "epoch"}
    with monkeypatch.context() as earlier:
        earlier.setattr("vaultlayer_hf.trainer.data.figures_of_step", lambda trainer: {})
        first = trainer(tmp_path / "a", resume=vault, callbacks=[FailAt(5), Patient(vault)], **more)
        with pytest.raises(Boom):
            first.train()
    run = trainer(tmp_path / "b", resume=vault, **more)
    run.train()
    found = {entry["step"]: entry for entry in logged(run)}
    assert "loss" in found[4]
    assert not {"learning_rate", "grad_norm"} & set(found[4])
    assert {"loss", "learning_rate", "grad_norm"} <= set(found[8])


class Falls(EarlyStoppingCallback):
    """Stops behind the second evaluation, which is the better one, but not by enough."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        metrics["eval_loss"] = 10.0 / state.global_step
        super().on_evaluate(args, state, control, metrics, **kwargs)


def test_the_best_model_that_an_owed_evaluation_finds_is_loaded_at_the_end(tmp_path: Path) -> None:
    """Also by a further start, on an empty disk: it is the one that an unbroken run ends with."""
    found, vault = [], tmp_path / "vault"
    for place in ("u", "a", "c", "d"):
        run = trainer(
            tmp_path / place,
            resume=None if place == "u" else Settings(vault=str(vault), save_every="4 steps"),
            train_dataset=Tokens(8),
            eval_dataset=Tokens(4),
            callbacks=[Falls(1, 100.0), *([FailAtEnd(8, vault)] if place == "a" else [])],
            max_steps=-1,
            num_train_epochs=5,
            eval_strategy="epoch",
            save_strategy="epoch",
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            load_best_model_at_end=True,
        )
        with pytest.raises(Boom) if place == "a" else nullcontext():
            run.train()
        found.append((Path(run.state.best_model_checkpoint).name, weights(run.model)))
    assert found[0][0] == "checkpoint-8"
    assert found[0] == found[2] == found[3]
