"""train() called again, behind a training that broke off or has ended; and what does not fit one vault."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    STEPS,
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    Tokens,
    model,
    state_of,
    steps_of,
    trainer,
    weights,
)
from vaultlayer_hf import VaultLayerCallback


def said(record: Recorder, what: str) -> int:
    """How often it was said that something doesn't fit one vault."""
    return len(
        [e for e in record.of("notice") if e.message.startswith(what) and "trained as stock" in e.message]
    )


def test_second_train_without_pull(tmp_path: Path) -> None:
    """With the callback alone, a second train() without pull() runs as stock: none of it is committed, as is said."""
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    run = trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback])
    record = Recorder(callback)
    run.train(resume_from_checkpoint=callback.pull())
    before = state_of(vault)
    for _ in range(2):
        assert run.train().global_step == STEPS
    assert state_of(vault) == before
    assert said(record, "a second train()") == 1


def test_second_train_goes_on_where_more_is_asked_for(tmp_path: Path) -> None:
    """Behind its end train() of the same Trainer trains nothing, and with more steps asked for it goes on to them."""
    vault = tmp_path / "vault"
    trained = tmp_path / "trained"  # a list that the callback fills would come back itself
    run = trainer(
        tmp_path / "out",
        resume=vault,
        callbacks=[Do(on_step_end=lambda state: (trained / str(state.global_step)).touch(exist_ok=False))],
    )
    trained.mkdir()
    run.train()
    ended, before = weights(run.model), state_of(vault)
    record = Recorder(run)
    output = run.train()
    assert (output.global_step, len(os.listdir(trained)), weights(run.model)) == (STEPS, STEPS, ended)
    assert output.metrics == before.metrics
    assert "already over" in record.of("finished")[0].message
    run.args.max_steps = STEPS + 2
    assert run.train().global_step == STEPS + 2
    assert len(os.listdir(trained)) == STEPS + 2
    assert (steps_of(vault)[-1], state_of(vault).finished) == (STEPS + 2, STEPS + 2)


def _other_data(run: Any) -> None:
    run.train_dataset = Tokens(12)


def _freeze(run: Any) -> None:
    run.model.model.embed_tokens.weight.requires_grad_(False)


def _slower(run: Any) -> None:
    run.args.learning_rate = 1e-3


@pytest.mark.parametrize("change", [_other_data, _freeze, _slower])
def test_another_training_of_the_same_trainer(change: Callable[[Any], None], tmp_path: Path) -> None:
    """Other data, frozen parameters or another rate behind an end: a training of its own, as stock, none committed."""
    vault = tmp_path / "vault"
    stock = trainer(tmp_path / "stock", cls=transformers.Trainer)
    stock.train()
    change(stock)
    stock.train()
    run = trainer(tmp_path / "out", resume=vault)
    run.train()
    change(run)
    before, record = state_of(vault), Recorder(run)
    assert run.train().global_step == STEPS
    assert weights(run.model) == weights(stock.model)
    assert state_of(vault) == before
    assert said(record, "another training of a Trainer that has ended one") == 1


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hyperparameter_search(alone: bool, tmp_path: Path) -> None:
    """A hyperparameter search runs as stock, its vault stays unclaimed, and that is said once."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    more: dict[str, Any] = {
        "model_init": lambda trial=None: model(),
        "eval_dataset": Tokens(2),
        "max_steps": 2,
    }
    run = (
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback], **more)
        if alone
        else trainer(tmp_path / "out", resume=vault, **more)
    )
    record = Recorder(callback if alone else run)
    run.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=2,
        backend="optuna",
        direction="minimize",
    )
    assert not (vault / "log").exists()
    assert said(record, "a hyperparameter search") == 1
    assert list((tmp_path / "out").glob("run-*/checkpoint-2"))  # saved as stock saves them


def test_model_init(tmp_path: Path, reference: Reference) -> None:
    """A Trainer that makes its model itself goes on to the same weights."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"model_init": lambda trial=None: model()}
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[FailAt(5)], **more).train()
    run = trainer(tmp_path / "b", resume=vault, **more)
    unbroken = trainer(tmp_path / "c", **more)
    run.train()
    unbroken.train()
    assert weights(run.model) == weights(unbroken.model)


class Once(transformers.TrainerCallback):
    """Stops a training the first time it comes to a step, as a person does who interrupts a notebook's cell."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.step = 0
            raise KeyboardInterrupt


@pytest.mark.parametrize("alone", [False, True])
def test_interrupted_and_called_again(alone: bool, tmp_path: Path, reference: Reference) -> None:
    """train() of the same Trainer after an interruption goes on from the newest checkpoint, to the same weights."""
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    callbacks: list[Any] = [Once(5), Patient(vault)]
    run = (
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback, *callbacks])
        if alone
        else trainer(tmp_path / "out", resume=vault, callbacks=callbacks)
    )
    record = Recorder(callback if alone else run)

    def cell() -> Any:
        return run.train(resume_from_checkpoint=callback.pull()) if alone else run.train()

    with pytest.raises(KeyboardInterrupt):
        cell()
    assert cell().global_step == STEPS
    assert record.of("restore")[0].fields["step"] == 4
    assert weights(run.model) == reference.weights
    assert state_of(vault).finished == STEPS
    assert said(record, "a second train()") == 0


class Signal(Once):
    """Sends a signal to this process, the first time that a training comes to a step."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step)
        self.number = number

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.step = 0
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("cell", ["train", "train with the callback alone", "Trainer and train"])
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_stopped_by_a_signal_and_called_again(
    number: int, error: type[BaseException], cell: str, tmp_path: Path, reference: Reference
) -> None:
    """A cell that a signal has stopped and that is run again goes on from its last step, commits, and ends the same."""
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    stops, begun = Signal(5, number), []
    callbacks: list[Any] = [stops, Do(on_train_begin=lambda state: begun.append(state.global_step))]

    def made() -> Any:
        if cell == "train with the callback alone":
            return trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback, *callbacks])
        return trainer(tmp_path / "out", resume=vault, callbacks=callbacks)

    def train(run: Any) -> Any:
        path = callback.pull() if cell == "train with the callback alone" else None
        return run.train(resume_from_checkpoint=path)

    run = made()
    with pytest.raises(error):
        train(run)
    run = made() if cell == "Trainer and train" else run
    assert train(run).global_step == STEPS
    assert begun == [0, 5]
    assert weights(run.model) == reference.weights
    assert (steps_of(vault)[-1], state_of(vault).finished) == (STEPS, STEPS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_in_an_evaluation_saves_the_step_before_it(tmp_path: Path) -> None:
    """SIGTERM within an evaluation saves the last step at once and ends; the next start ends as an unbroken run."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {
        "eval_dataset": Tokens(6),
        "eval_strategy": "steps",
        "eval_steps": 5,
        "per_device_eval_batch_size": 1,
        "save_steps": 100,
    }
    unbroken = trainer(tmp_path / "unbroken", **more)
    unbroken.train()
    seen: list[int] = []

    def evaluate(state: Any) -> None:
        seen.append(state.global_step)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run = trainer(tmp_path / "out", resume=vault, callbacks=[Do(on_prediction_step=evaluate)], **more)
    with pytest.raises(SystemExit):
        run.train()
    assert seen == [5, 5]
    assert steps_of(vault) == [5]
    again = trainer(tmp_path / "elsewhere", resume=vault, **more)
    assert again.train().global_step == STEPS
    assert weights(again.model) == weights(unbroken.model)


def test_noise_is_added_once_behind_an_interruption(tmp_path: Path) -> None:
    """NEFTune's noise, which an interrupted training of stock leaves on the model, isn't added twice by the next."""
    more: dict[str, Any] = {"neftune_noise_alpha": 5.0}
    unbroken = trainer(tmp_path / "a", **more)
    unbroken.train()
    run = trainer(tmp_path / "b", resume=tmp_path / "vault", callbacks=[Signal(5, signal.SIGINT)], **more)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.train()
    assert weights(run.model) == weights(unbroken.model)


def test_failed_before_its_first_step_and_called_again(tmp_path: Path, reference: Reference) -> None:
    """train() that failed at making its loader, and is called again once that is mended, is committed."""
    vault = tmp_path / "vault"
    run = trainer(tmp_path / "out", resume=vault)
    data, run.train_dataset = run.train_dataset, None
    with pytest.raises(ValueError, match="requires a train_dataset"):
        run.train()
    run.train_dataset = data
    run.train()
    assert weights(run.model) == reference.weights
    assert (steps_of(vault)[-1:], state_of(vault).finished) == ([STEPS], STEPS)


def test_used_weights_are_not_begun_with_in_silence(tmp_path: Path) -> None:
    """Called again where no checkpoint was saved yet, it is said that the weights are not those of a fresh start."""
    run = trainer(tmp_path / "out", resume=tmp_path / "vault", callbacks=[Once(1)])
    record = Recorder(run)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.train()
    assert any("1 step(s) have changed already" in event.message for event in record.of("notice"))


@pytest.mark.parametrize("same", [True, False], ids=["the same vault", "another vault"])
def test_a_used_model_in_a_new_trainer_is_said(same: bool, tmp_path: Path) -> None:
    """A cell that makes the Trainer anew, and not the model, is told of it; a second run on it has its own vault."""
    used = model()
    first = trainer(tmp_path / "out", resume=tmp_path / "vault", model=used, callbacks=[Once(1)])
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again = trainer(tmp_path / "out", resume=tmp_path / ("vault" if same else "other"), model=used)
    record = Recorder(again)
    again.train()
    said = ["1 step(s) have changed already" in event.message for event in record.of("notice")]
    assert said.count(True) == int(same)


def test_out_of_memory_is_tried_again_by_the_trainer(tmp_path: Path) -> None:
    """auto_find_batch_size begins anew with a smaller batch within one train(): its saves are the vault's newest."""
    vault = tmp_path / "vault"
    tried: list[int] = []

    def fail_once(state: Any) -> None:
        if state.global_step == 3 and not tried:
            tried.append(3)
            raise RuntimeError("CUDA out of memory. (by the test)")

    run = trainer(
        tmp_path / "out",
        resume=vault,
        callbacks=[Do(on_step_end=fail_once), Patient(vault)],
        auto_find_batch_size=True,
        max_steps=4,
    )
    assert run.train().global_step == 4
    assert tried == [3]
    # The second save of step 2 may still be under way at step 4, which then replaces it.
    assert steps_of(vault) in ([2, 2, 4], [2, 4])
    assert state_of(vault).finished == 4
