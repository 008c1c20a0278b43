"""What does not fit one vault: a second train(), a search. And a training that broke off and is begun again."""

from __future__ import annotations

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


@pytest.mark.parametrize("alone", [False, True])
def test_second_train(alone: bool, tmp_path: Path) -> None:
    """A second train() of one Trainer runs as stock: nothing of it is committed, and that is said once."""
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    run = (
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback])
        if alone
        else trainer(tmp_path / "out", resume=vault)
    )
    record = Recorder(callback if alone else run)
    run.train(resume_from_checkpoint=callback.pull() if alone else None)
    before = state_of(vault)
    for _ in range(2):
        assert run.train().global_step == STEPS
    assert state_of(vault) == before
    assert said(record, "a second train()") == 1


@pytest.mark.parametrize("alone", [False, True])
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
