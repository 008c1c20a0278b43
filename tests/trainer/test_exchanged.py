"""A script that exchanges its optimizer or its schedule on the way: what a resume says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR
from transformers import TrainerCallback

from tests.trainer.kit import STEPS, Boom, FailAt, Patient, Recorder, model, trainer
from vaultlayer_hf import errors


class Exchange(TrainerCallback):
    """Exchanges a part of the training at the end of the third step, and notes each step's end."""

    def __init__(self, **makes: Any) -> None:
        self._makes, self.trainer = makes, None
        self.ended: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended.append(state.global_step)
        if state.global_step == 3:
            for name, make in self._makes.items():
                setattr(self.trainer, name, make(self.trainer))


def start(tmp_path: Path, exchange: Exchange, first: Any = None, **more: Any) -> Any:
    """A Trainer whose schedule is ``first``, or the Trainer's own."""
    if first is not None:
        more["model"] = model()
        optimizer = torch.optim.AdamW(more["model"].parameters(), lr=1e-2)
        more["optimizers"] = (optimizer, first(optimizer))
    callbacks = [exchange, *more.pop("callbacks", ())]
    made = trainer(tmp_path / "o", resume=str(tmp_path / "v"), callbacks=callbacks, **more)
    exchange.trainer = made
    return made


def broken_off(tmp_path: Path, exchange: Exchange, first: Any = None) -> None:
    """Train up to a failure behind the exchange; the newest checkpoint is of step 4."""
    with pytest.raises(Boom):
        start(tmp_path, exchange, first, callbacks=[FailAt(5), Patient(tmp_path / "v")]).train()


def test_a_schedule_that_cannot_take_the_place_of_another_is_named(tmp_path: Path) -> None:
    """Instead of torch's KeyError the start ends with both classes, and with what to do."""

    def cosine(run: Any) -> Any:
        return CosineAnnealingLR(run.optimizer, T_max=5)

    broken_off(tmp_path, Exchange(lr_scheduler=cosine))
    again = Exchange(lr_scheduler=cosine)
    with pytest.raises(
        errors.OtherRunError, match=r"the schedule CosineAnnealingLR .* begins with LambdaLR, which"
    ):
        start(tmp_path, again).train()
    assert again.ended == []


def test_a_schedule_that_lacks_its_numbers_is_named(tmp_path: Path) -> None:
    """One that keeps numbers in the optimizer's groups, where the checkpoint has none, ends the start, not the step."""

    def one_cycle(optimizer: Any) -> Any:
        return OneCycleLR(optimizer, 1e-2, total_steps=20)

    def constant(optimizer: Any) -> Any:
        return LambdaLR(optimizer, lambda step: 1.0)

    with pytest.raises(Boom):
        start(tmp_path, Exchange(), constant, callbacks=[FailAt(3), Patient(tmp_path / "v")]).train()
    again = Exchange()
    words = (
        r"the schedule LambdaLR .* begins with OneCycleLR, which .*groups there have no base_momentum, max_lr"
    )
    made = start(tmp_path, again, one_cycle)
    with pytest.raises(errors.OtherRunError, match=words):
        made.train()
    assert again.ended == []
    assert "_load_optimizer_and_scheduler" not in vars(made), "the Trainer is left as it was"


def test_a_schedule_that_takes_the_place_of_another_is_said(tmp_path: Path) -> None:
    """The place is taken, and which schedule holds is said: not that what was loaded isn't what was saved."""

    def step(optimizer: Any) -> Any:
        return StepLR(optimizer, 5)

    exchange = Exchange(lr_scheduler=lambda run: CosineAnnealingLR(run.optimizer, T_max=5))
    broken_off(tmp_path, exchange, step)
    again = Exchange()
    made = start(tmp_path, again, step)
    log = Recorder(made)
    made.train()
    assert made.state.global_step == STEPS
    said = [one.message for one in log.of("notice") if one.message.startswith("schedule: ")]
    assert said == [
        "schedule: CosineAnnealingLR in the checkpoint, StepLR asked for: this start's holds from here on"
    ]


def test_a_schedule_with_another_function_is_said(tmp_path: Path) -> None:
    """Of two schedules of one class, that follow other functions, the save and the resume say that they differ."""

    def constant(optimizer: Any) -> Any:
        return LambdaLR(optimizer, lambda step: 1.0)

    def falling(step: int) -> float:
        return 1 / (step + 1)

    exchange = Exchange(lr_scheduler=lambda run: LambdaLR(run.optimizer, falling))
    broken_off(tmp_path, exchange, constant)
    made = start(tmp_path, Exchange(), constant)
    log = Recorder(made)
    made.train()
    assert any("lr_scheduler" in one.message for one in log.of("inexact"))


def test_an_optimizer_of_another_class_is_named(tmp_path: Path) -> None:
    """The checkpoint says of which class the optimizer was when it was saved, not when the training began."""

    def sgd(run: Any) -> Any:
        return torch.optim.SGD(run.model.parameters(), lr=1e-2, momentum=0.9)

    broken_off(tmp_path, Exchange(optimizer=sgd))
    again = Exchange(optimizer=sgd)
    with pytest.raises(errors.OtherRunError, match="state of SGD, and this run trains with AdamW"):
        start(tmp_path, again).train()
    assert again.ended == []
