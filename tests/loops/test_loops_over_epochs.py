"""A script with several loops over epochs: each has its own, and a resume goes on in the one that was under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tests.loops.broken_off import Training, differing, train
from vaultlayer_hf import SettingsError


@pytest.mark.parametrize("second", [range(5), range(3, 8)])
def test_a_head_and_then_the_whole(tmp_path: Path, second: range) -> None:
    """Both loops have all of their epochs, unbroken and killed behind any step."""

    def body(training: Training) -> None:
        loader = DataLoader(range(2), shuffle=True)
        for epochs in (range(3), second):
            for epoch in training.ckpt.epochs(epochs):
                numbers.append(epoch)
                training.learn(training.ckpt.batches(loader))

    numbers: list[int] = []
    train(body, tmp_path / "unbroken")
    assert numbers == [*range(3), *second]
    assert differing(body, tmp_path / "within", (1, 5, 6, 7, 9, 15)) == {}
    assert differing(body, tmp_path / "between", (7, 9), every=2) == {}  # saved at the ends of epochs


def test_a_loop_behind_one_that_was_left(tmp_path: Path) -> None:
    """A loop that early stopping has left doesn't end the one behind it: finished, that one can be made longer."""

    def body(training: Training, epochs: int) -> None:
        loader = DataLoader(range(2), shuffle=True)
        for epoch in training.ckpt.epochs(range(4)):
            training.learn(training.ckpt.batches(loader))
            if epoch == 1:
                break
        for _ in training.ckpt.epochs(range(epochs)):
            training.learn(training.ckpt.batches(loader))

    whole = train(lambda training: body(training, 5), tmp_path / "whole")
    assert len(whole.seen) == 14
    shorter = train(lambda training: body(training, 3), tmp_path / "longer")
    assert shorter.seen == whole.seen[:10]
    assert train(lambda training: body(training, 3), tmp_path / "longer").seen == []
    longer = train(lambda training: body(training, 5), tmp_path / "longer")
    assert longer.seen == whole.seen[10:]
    assert longer.weights() == whole.weights()


def test_a_run_that_was_left_and_asks_for_another_loop(tmp_path: Path) -> None:
    """A run of one loop that was left stays finished."""

    def body(training: Training) -> None:
        loader = DataLoader(range(2), shuffle=True)
        for epoch in training.ckpt.epochs(range(4)):
            training.learn(training.ckpt.batches(loader))
            if epoch == 1:
                break

    assert len(train(body, tmp_path).seen) == 4
    assert train(body, tmp_path).seen == []


def test_a_loop_that_was_left_and_is_held(tmp_path: Path) -> None:
    """A variable, such as a bar's, holds what the loop went through: left, the run stays finished nevertheless."""

    def body(training: Training) -> None:
        loader = DataLoader(range(2), shuffle=True)
        held.append(training.ckpt.epochs(range(4)))
        for epoch in held[-1]:
            training.learn(training.ckpt.batches(loader))
            if epoch == 1:
                break

    held: list[Iterator[int]] = []
    assert len(train(body, tmp_path).seen) == 4
    assert train(body, tmp_path).seen == []


def test_resume_again_counts_from_the_first_loop(tmp_path: Path) -> None:
    """A notebook's cell that calls resume() and is run again with more epochs does those, in the same process."""
    training = Training(tmp_path)
    for epochs, expected in ((2, 4), (2, 4), (3, 6)):
        training.ckpt.resume()
        loader = DataLoader(range(2), shuffle=True)
        for _ in training.ckpt.epochs(range(epochs)):
            training.learn(training.ckpt.batches(loader))
        assert len(training.seen) == expected
    training.ckpt.close()


def test_a_loop_within_another(tmp_path: Path) -> None:
    """One within an epoch of another is refused, since a resume would find its place in neither."""

    def body(training: Training) -> None:
        for _ in training.ckpt.epochs(range(2)):
            for _ in training.ckpt.epochs(range(2)):
                pass

    with pytest.raises(SettingsError, match="within an epoch of another"):
        train(body, tmp_path)
