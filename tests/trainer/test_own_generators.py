"""Generators of a script's own, and what of a model is trained, come back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from transformers import TrainerCallback

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, Tokens, trainer, weights
from vaultlayer_hf import Trainer


class Noisy(Trainer):
    """Draws from generators of its own, of every kind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.torch_rng = torch.Generator().manual_seed(0)
        self.python_rng, self.numpy_rng = random.Random(0), numpy.random.default_rng(0)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        drawn = (
            torch.rand(1, generator=self.torch_rng).item()
            + self.python_rng.random()
            + self.numpy_rng.random()
        )
        return super().compute_loss(*args, **kwargs) * (1 + drawn)


class ThawsEarly(TrainerCallback):
    """Trains the layers from about epoch 1 on: too early where it is asked in the middle of epoch 0."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        model.model.layers.requires_grad_(round(state.epoch or 0) >= 1)


TOP = numpy.random.default_rng(0)
"""A generator at the top of a script."""


class Drawn(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows drawn from a generator that the class finds at the top of its module."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.tensor(TOP.integers(0, 64, 16))
        return {"input_ids": row, "labels": row}


class TopNoise(Trainer):
    """Draws from there in its loss."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * (1 + TOP.random())


class Noise(torch.nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(0)

    def forward(self) -> float:
        return torch.rand(1, generator=self.rng).item()


class NoisyModel(Trainer):
    """Has such a module in its model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.noise = Noise()

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, *args, **kwargs) * (1 + self.model.noise())


class Thaws(TrainerCallback):
    """Trains the layers from step 3 on."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        model.model.layers.requires_grad_(False)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            model.model.layers.requires_grad_(True)


@pytest.mark.parametrize(
    ("cls", "callback", "data"),
    [
        (Noisy, Do, Tokens),
        (NoisyModel, Do, Tokens),
        (Trainer, Thaws, Tokens),
        (Trainer, ThawsEarly, Tokens),
        (Trainer, Do, Drawn),
        (TopNoise, Do, Tokens),
        (TopNoise, Do, Drawn),
    ],
)
def test_it_comes_back(cls: Any, callback: Any, data: Any, tmp_path: Path) -> None:
    """Generators of a Trainer's own, of a module and at a script's top, and what is trained, are back twice."""
    begin = TOP.bit_generator.state
    unbroken = trainer(tmp_path / "u", cls=cls, callbacks=[callback()], train_dataset=data())
    unbroken.train()
    vault = tmp_path / "vault"
    for step in (5, 7):
        TOP.bit_generator.state = begin
        run = trainer(
            tmp_path / f"{step}",
            cls=cls,
            resume=vault,
            train_dataset=data(),
            callbacks=[callback(), Patient(vault), FailAt(step)],
        )
        with pytest.raises(Boom):
            run.train()
    again = trainer(tmp_path / "b", cls=cls, resume=vault, train_dataset=data(), callbacks=[callback()])
    seen = Recorder(again)
    again.train()
    assert weights(again.model) == weights(unbroken.model)
    assert not seen.of("inexact")
