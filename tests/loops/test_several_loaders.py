"""Loops that go through several loaders: behind a resume each goes on in its own order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from tests.kit.inside import data_of
from tests.loops.broken_off import Training, differing, train

ROWS, EPOCHS = 4, 3


def _loader(seed: int | None, start: int = 0, rows: int = ROWS) -> DataLoader[Any]:
    own = torch.Generator().manual_seed(seed) if seed is not None else None
    return DataLoader(range(start, start + rows), batch_size=2, shuffle=True, generator=own)


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((None, 2), (1, None)))],
)
def test_two_loaders_in_each_epoch(tmp_path: Path, first: int | None, second: int | None) -> None:
    """Killed behind any step, both loaders go on in their own order, also where only one has a generator of its own."""

    def body(training: Training) -> None:
        loaders = _loader(first), _loader(second)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            for loader in loaders:
                training.learn(training.ckpt.batches(loader))

    assert differing(body, tmp_path / "within") == {}
    assert differing(body, tmp_path / "between", (5, 9), every=4) == {}  # saved at the ends of epochs


def test_two_loaders_by_steps(tmp_path: Path) -> None:
    """``steps()`` of one loader and of another in turn: each goes on in its own order."""

    def body(training: Training) -> None:
        loaders = _loader(1), _loader(2)
        for _ in range(EPOCHS):
            for loader in loaders:
                training.learn(batch for _, batch in training.ckpt.steps(loader))

    # Within passes, of two steps each: at their ends a generator of the loader's own isn't exact, of one loader either.
    assert differing(body, tmp_path, (1, 3, 5, 7, 9)) == {}


def test_a_loader_that_comes_later(tmp_path: Path) -> None:
    """A loader that only some epochs ask for, ahead of the others' one, has a place of its own."""

    def body(training: Training) -> None:
        always, sometimes = _loader(1), _loader(2, 10, 6)
        for epoch in training.ckpt.epochs(range(5)):
            if epoch in (2, 4):
                training.learn(training.ckpt.batches(sometimes))
            training.learn(training.ckpt.batches(always))

    assert differing(body, tmp_path, (3, 5, 6, 8, 10)) == {}


def test_other_data_in_later_epochs(tmp_path: Path) -> None:
    """An epoch that goes through other data than the one before doesn't begin in that one's order."""

    def body(training: Training) -> None:
        easy, hard = _loader(1), _loader(2, 10, 6)
        for epoch in training.ckpt.epochs(range(4)):
            training.learn(training.ckpt.batches(easy if epoch < 2 else hard))

    assert differing(body, tmp_path / "within", (3, 5, 7)) == {}
    assert differing(body, tmp_path / "between", (3, 5), every=2) == {}


@pytest.mark.parametrize("bar", [False, True])
def test_loaders_with_one_generator(tmp_path: Path, bar: bool) -> None:
    """What two loaders draw from together is brought back once, alone or in bars."""
    around: Callable[[Any], Any] = (
        (lambda loader: tqdm(loader, disable=True)) if bar else (lambda loader: loader)
    )

    def body(training: Training) -> None:
        own = torch.Generator().manual_seed(5)
        loaders = [DataLoader(range(ROWS), batch_size=2, shuffle=True, generator=own) for _ in range(2)]
        for _ in training.ckpt.epochs(range(EPOCHS)):
            for loader in loaders:
                training.learn(training.ckpt.batches(around(loader)))

    assert differing(body, tmp_path / "within", (1, 3, 6)) == {}
    assert differing(body, tmp_path / "between", (5,), every=4) == {}


def test_bars_around_two_loaders(tmp_path: Path) -> None:
    """Loaders within bars have places of their own, too."""

    def body(training: Training) -> None:
        loaders = _loader(1), _loader(2)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            for loader in loaders:
                training.learn(training.ckpt.batches(tqdm(loader, disable=True)))

    assert differing(body, tmp_path / "within", (1, 3, 6)) == {}
    assert differing(body, tmp_path / "between", (5,), every=4) == {}


class Counting(Dataset[int]):
    """Numbers that grow with each that was fetched."""

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> int:
        self.count += 1
        return self.count


@pytest.mark.parametrize("anew", [False, True])
def test_loaders_of_one_data_set(tmp_path: Path, anew: bool) -> None:
    """A count in the data that two loaders share goes on, with the same loaders in each epoch or others."""

    def body(training: Training) -> None:
        data = Counting()
        loaders = [DataLoader(data, batch_size=2) for _ in range(2)]
        for _ in training.ckpt.epochs(range(EPOCHS)):
            if anew:
                loaders = [DataLoader(data, batch_size=2) for _ in range(2)]
            for loader in loaders:
                training.learn(training.ckpt.batches(loader))

    assert differing(body, tmp_path / "within", (1, 3, 6)) == {}
    assert differing(body, tmp_path / "between", (5,), every=4) == {}


def test_a_place_that_an_earlier_version_wrote(tmp_path: Path) -> None:
    """A checkpoint that doesn't say whose place it has gives it to the loader that opens first."""

    def body(training: Training) -> None:
        loader = _loader(1)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            training.learn(training.ckpt.batches(loader))

    whole = train(body, tmp_path / "whole")
    for step in (1, 2, 3):  # within an epoch, behind it, and within the next
        train(body, tmp_path / str(step), stop=3)
        path = tmp_path / str(step) / "output" / f"checkpoint-{step}" / "data_0.pt"
        state = torch.load(path, weights_only=False)
        assert state["format"] == 2
        for key in ("loader", "places", "loops", "tail"):
            del state[key]
        assert _goes_on(body, tmp_path / str(step), state) == whole.seen[2 * step :]


def _goes_on(body: Callable[[Training], None], folder: Path, state: dict[str, Any]) -> list[int]:
    """Go on from a state of another version in place of the newest checkpoint's; return the rows."""
    training = Training(folder)
    training.ckpt.resume()
    data_of(training.ckpt).load_state_dict(state, None, 1)
    body(training)
    training.ckpt.close()
    return training.seen
