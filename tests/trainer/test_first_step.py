"""What stock does a second time where a resume goes on: evaluate at the start, and begin the epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, is_new, model, trainer, weights
from vaultlayer_hf import Trainer

LOSSES = {0: 9.0, 2: 3.0, 4: 2.0, 6: 5.0, 8: 1.0}


class Scripted(EarlyStoppingCallback):
    """Early stopping by losses that are written down: one evaluation more than these would end the run."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        metrics["eval_loss"] = LOSSES[state.global_step]
        super().on_evaluate(args, state, control, metrics, **kwargs)


def test_a_resume_does_not_evaluate_at_its_start(tmp_path: Path) -> None:
    """With eval_on_start early stopping counts as in an unbroken run, and the log has no evaluation twice."""
    more: dict[str, Any] = {
        "eval_dataset": Tokens(2),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "load_best_model_at_end": True,
    }
    vault = tmp_path / "vault"
    for step in (5, 7):
        callbacks = [Scripted(2), Patient(vault), FailAt(step)]
        with pytest.raises(Boom):
            trainer(tmp_path / f"{step}", resume=vault, callbacks=callbacks, **more).train()
    again = trainer(tmp_path / "b", resume=vault, callbacks=[Scripted(2)], **more)
    again.train()
    assert again.state.global_step == 8
    assert [entry["step"] for entry in again.state.log_history if "eval_loss" in entry] == [0, 2, 4, 6, 8]
    assert again.args.eval_on_start


class Resets(TrainerCallback):
    """Makes a layer anew as an epoch begins."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        torch.nn.init.zeros_(model.model.layers[0].mlp.down_proj.weight)


@pytest.mark.parametrize(("step", "said"), [(3, True), (5, False)])
def test_weights_that_change_ahead_of_the_first_step_are_said(step: int, said: bool, tmp_path: Path) -> None:
    """A layer that a callback makes anew in the middle of an epoch is named; at an epoch's begin nothing is."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"train_dataset": Tokens(8)}  # 4 steps are an epoch
    unbroken = trainer(tmp_path / "u", callbacks=[Resets()], **more)
    unbroken.train()
    with pytest.raises(Boom):
        trainer(
            tmp_path / "a", resume=vault, callbacks=[Resets(), Patient(vault), FailAt(step)], **more
        ).train()
    again = trainer(tmp_path / "b", resume=vault, callbacks=[Resets()], **more)
    seen = Recorder(again)
    again.train()
    found = [event.message for event in seen.of("inexact")]
    assert [one.startswith("model.layers.0.mlp.down_proj.weight of the model") for one in found] == [
        True
    ] * said
    assert (weights(again.model) == weights(unbroken.model)) is not said


def test_early_stopping_may_be_added_at_a_resume(tmp_path: Path) -> None:
    """A callback with a state that the checkpoint doesn't have begins anew; stock's own save would end the training."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"eval_dataset": Tokens(2), "eval_strategy": "steps", "eval_steps": 2}
    more |= {"metric_for_best_model": "eval_loss", "greater_is_better": False, "load_best_model_at_end": True}
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[Patient(vault), FailAt(3)], **more).train()
    again = trainer(tmp_path / "b", resume=vault, callbacks=[EarlyStoppingCallback(9)], **more)
    assert again.train().global_step == 8


class Looks(Trainer):
    """Notes ahead of each step, where trl's GKD lets the model write, which modules are in training mode."""

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "modes"):
            self.modes: dict[int, set[str]] = {}
        self.modes[self.state.global_step] = {name for name, one in model.named_modules() if one.training}
        return super().training_step(model, *args, **kwargs)


@pytest.mark.parametrize("evaluates", [True, False])
@pytest.mark.parametrize("epoch", [8, 16], ids=["epoch", "within"])  # 4 or 8 steps
def test_modules_are_in_training_mode_as_in_an_unbroken_run(
    epoch: int, evaluates: bool, tmp_path: Path
) -> None:
    """Ahead of the first step behind a resume each module is in training mode, or in evaluation, as it was saved."""
    vault = tmp_path / "vault"
    more: dict[str, Any] = {"cls": Looks, "train_dataset": Tokens(epoch), "save_steps": 4}
    if evaluates:
        more |= {"eval_dataset": Tokens(2), "eval_strategy": "steps", "eval_steps": 4}
    unbroken = trainer(tmp_path / "u", model=model().eval(), **more)  # as from_pretrained leaves it
    unbroken.train()
    with pytest.raises(Boom):
        trainer(
            tmp_path / "a", resume=vault, model=model().eval(), callbacks=[Patient(vault), FailAt(6)], **more
        ).train()
    again = trainer(tmp_path / "b", resume=vault, model=model().eval(), **more)
    again.train()
    assert unbroken.modes[0] == set() or not is_new()  # transformers 4 has it train from the begin on
    assert bool(unbroken.modes[4]) is not evaluates
    assert again.modes == unbroken.modes  # those of the steps before have come back
