"""A sampler or a collator of the script's own goes on where it was, whatever it draws from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, arguments, model, weights
from vaultlayer_hf import resumable


class Sampler(torch.utils.data.Sampler[int]):
    """Ten places, in each pass in an order that follows from generators of three kinds, and from a counter."""

    def __init__(self) -> None:
        self.size, self.seed = 10, 5
        self.python, self.numpy = random.Random(0), np.random.default_rng(0)
        self.torch = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        self.seed += 1
        places = random.Random(self.seed).sample(range(10), 10)
        places = [places[place] for place in self.numpy.permutation(10)]
        places = [places[place] for place in torch.randperm(10, generator=self.torch)]
        return iter([places[place] for place in self.python.sample(range(10), 10)])


class Collator:
    """Changes a token of each batch, by how many it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = torch.stack([sample["input_ids"] for sample in samples])
        self.seen += 1
        tokens[0, self.seen % 16] = 1
        return {"input_ids": tokens, "labels": tokens}


def made(folder: Path, vault: Path | None, *callbacks: Any) -> Any:
    """A training of 14 steps, of which five are a pass."""

    class Own(transformers.Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return Sampler()

    return resumable(Own)(
        model=model(),
        args=arguments(folder, max_steps=14),
        train_dataset=Tokens(),
        data_collator=Collator(),
        callbacks=list(callbacks),
        resume=vault,
    )


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Broken off in the second pass and again in the third: the weights are an unbroken run's, and nothing is said."""
    unbroken = made(tmp_path / "u", None)
    unbroken.train()
    vault = tmp_path / "v"
    for number, step in enumerate((9, 11)):
        with pytest.raises(Boom):
            made(tmp_path / str(number), vault, Patient(vault), FailAt(step)).train()
    again = made(tmp_path / "b", vault)
    seen = Recorder(again)
    again.train()
    assert weights(again.model) == weights(unbroken.model)
    assert not seen.of("inexact")


class Focal(transformers.Trainer):
    """Has torch's sampler draw rows by weights that its losses change."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self.drawn_by = torch.utils.data.WeightedRandomSampler([1.0] * 8, 8)
        return self.drawn_by

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.drawn_by.weights[0] += 1
        return super().compute_loss(*args, **kwargs)


def test_weights_of_a_librarys_sampler_come_back(tmp_path: Path) -> None:
    """Broken off within the first pass, and in the second: each row comes as in an unbroken run."""

    def made(place: str, vault: Path | None, *callbacks: Any) -> Any:
        return resumable(Focal)(
            model=model(),
            args=arguments(tmp_path / place, max_steps=14),
            train_dataset=Tokens(8),
            resume=vault,
            callbacks=list(callbacks),
        )

    unbroken = made("u", None)
    unbroken.train()
    vault = tmp_path / "vault"
    for step in (3, 7, 9):
        with pytest.raises(Boom):
            made(str(step), vault, FailAt(step), Patient(vault)).train()
    again = made("b", vault)
    seen = Recorder(again)
    again.train()
    assert weights(again.model) == weights(unbroken.model)
    assert again.drawn_by.weights.tolist() == unbroken.drawn_by.weights.tolist()
    assert not seen.of("inexact")


@pytest.mark.parametrize("again", [False, True], ids=["another", "the same"])
def test_another_order_is_said(tmp_path: Path, again: bool) -> None:
    """A warning comes where a script draws its order without a seed at each start: the one that was left is gone."""
    orders = [[3, 1, 4, 0, 5, 9, 2, 6, 8, 7], [2, 7, 1, 8, 0, 4, 5, 9, 6, 3]]

    class Drawn(transformers.Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return orders[0]

    for place, fails in (("a", 4), ("b", 0)):
        run = resumable(Drawn)(
            model=model(),
            args=arguments(tmp_path / place),
            train_dataset=Tokens(10),
            resume=str(tmp_path / "vault"),
            callbacks=[FailAt(fails), Patient(tmp_path / "vault")] if fails else [],
        )
        seen = Recorder(run)
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        if not again:
            orders.reverse()
    assert any("the data's order isn't" in one.message for one in seen.of("inexact")) is not again
