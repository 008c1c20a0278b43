"""The code of an epoch around its passes through the data is done once, wherever the run was broken off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.kit.inside import settle
from tests.loops.broken_off import Died, Training, differing, train
from vaultlayer_hf import open_vault

ROWS, EPOCHS = 5, 3


def _loader(rows: int = ROWS) -> DataLoader[int]:
    return DataLoader(range(rows), batch_size=1, shuffle=True)


def _tail(training: Training) -> None:
    """Epochs of three steps: of two batches each, and of the one that is left; a schedule steps behind them."""
    loader = _loader()
    for _ in training.ckpt.epochs(range(EPOCHS)):
        for number, batch in enumerate(training.ckpt.batches(loader), training.ckpt.batches_done):
            training.gather(batch)
            if number % 2:
                training.step()
        training.step()
        training.schedule.step()
        torch.rand(())


def test_a_step_behind_the_batches(tmp_path: Path) -> None:
    """A save that falls due at a step behind the batches waits for the epoch's end, as one at the last batch does."""
    # Killed at the step itself, the run goes on from a step before it; what the broken one had trained it trains again.
    assert differing(_tail, tmp_path / "each") == {}
    assert differing(_tail, tmp_path / "third", (4, 7), every=3) == {}  # due at that step itself


def test_a_save_that_waits_is_made(tmp_path: Path) -> None:
    """A save that fell due at the last batch isn't lost where another step follows within the epoch."""

    def body(training: Training) -> None:
        loader = _loader(4)
        for _ in training.ckpt.epochs(range(2)):
            settle(training.ckpt)  # else a newer save may take the place of one that isn't sent yet
            training.learn(training.ckpt.batches(loader))
            settle(training.ckpt)
            training.step()

    train(body, tmp_path, every=4)
    with open_vault(str(tmp_path / "vault")) as vault:
        assert [commit.step for commit in vault.checkpoints()] == [5, 8, 10]


def test_a_step_between_two_passes(tmp_path: Path) -> None:
    """Saved at a step between two passes of one epoch, the run still trains the second one."""

    def body(training: Training) -> None:
        loaders = _loader(3), _loader(2)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            for loader in loaders:
                training.learn(training.ckpt.batches(loader))
                if loader is loaders[0]:
                    training.step()

    found = differing(body, tmp_path)
    assert list(found) == [5, 6, 11, 12, 17]  # within the second pass, which that step is ahead of
    for first, rest, whole, said in found.values():
        assert first + rest[-(len(whole) - len(first)) :] == whole
        assert len(said) == 1
        assert "trained, and counted, once more" in said[0]


def test_a_step_ahead_of_the_batches_is_said(tmp_path: Path) -> None:
    """Where a resume trains a step once more that an epoch has ahead of its batches, that is said."""

    def body(training: Training) -> None:
        loader = _loader(2)
        for epoch in training.ckpt.epochs(range(EPOCHS)):
            if epoch != 1:
                training.gather(torch.tensor([9]))
                training.step()
            training.learn(training.ckpt.batches(loader))

    for stop, (_, _, _, said) in differing(body, tmp_path).items():
        assert stop in (1, 2, 3, 6, 7)
        assert len(said) == 1, stop
        assert "trained, and counted, once more" in said[0]


def test_a_stop_behind_the_batches_is_said(tmp_path: Path) -> None:
    """Where a run was told to end in that code, the next start says that the rest of it isn't done."""
    import signal

    def body(training: Training) -> None:
        loader = _loader(2)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            training.learn(training.ckpt.batches(loader))
            if training.steps == 2 and not stopped:
                stopped.append(1)
                signal.raise_signal(signal.SIGINT)
                training.step()

    stopped: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(body, tmp_path)
    rest = train(body, tmp_path)
    assert len(rest.seen) == 4
    assert len(rest.inexact) == 1
    assert "told to end in the code of an epoch that follows its batches" in rest.inexact[0]


def test_a_save_of_two_passes_in_their_epoch(tmp_path: Path) -> None:
    """Saved by the script behind the second pass of an epoch, the run goes on with the next epoch, not behind it."""

    def body(training: Training) -> None:
        loaders = _loader(3), _loader(2)
        for _ in training.ckpt.epochs(range(EPOCHS)):
            for loader in loaders:
                training.learn(training.ckpt.batches(loader))
            training.ckpt.save()
            if training.steps == 5 and not died:
                died.append(1)
                training.ckpt.close()
                raise Died

    died = [1]
    whole = train(body, tmp_path / "whole", every=1000)
    died.clear()
    assert train(body, tmp_path / "broken", every=1000).seen == whole.seen[:5]
    assert train(body, tmp_path / "broken", every=1000).seen == whole.seen[5:]


def test_passes_that_a_resumed_epoch_doesn_t_come_to(tmp_path: Path) -> None:
    """A resumed script that ends its epoch ahead of the pass that was under way is told so; later epochs are whole."""

    def body(training: Training, most: int) -> None:
        loader = _loader(3)
        for epoch in training.ckpt.epochs(range(EPOCHS)):
            for number in range(4):
                total = 0
                (total,) = training.ckpt.carry(lambda: {"total": total}, in_pass=True)  # noqa: B023  the one of now
                assert total == 0, "that of a pass that was given up"
                for batch in training.ckpt.batches(loader):
                    total += 1
                    training.learn([batch])
                if epoch == 0 and number + 1 == most:
                    break

    train(lambda training: body(training, 4), tmp_path, stop=7)  # within the third pass
    rest = train(lambda training: body(training, 1), tmp_path)
    assert len(rest.seen) == (EPOCHS - 1) * 4 * 3
    assert len(rest.inexact) == 1
    assert "ended that epoch ahead of the pass through data that was under way" in rest.inexact[0]


def test_batches_that_are_only_measured(tmp_path: Path) -> None:
    """``len()`` of the batches of a pass begins none, and batches made once ahead of the epochs are those of each."""

    def body(training: Training) -> None:
        loaders = _loader(3), _loader(2)
        ckpt = training.ckpt
        batches = ckpt.batches(loaders[1])
        for _ in ckpt.epochs(range(EPOCHS)):
            left = len(ckpt.batches(loaders[0]))
            given = list[int]()
            for number, batch in enumerate(ckpt.batches(loaders[0]), ckpt.batches_done):
                assert len(ckpt.batches(loaders[0])) == 3
                assert ckpt.batches_done == number + 1
                training.learn([batch])
                given.append(number)
            assert len(given) == left
            left = len(batches)
            assert len(list(map(training.learn, ([batch] for batch in batches)))) == left

    assert differing(body, tmp_path) == {}


def test_the_count_of_a_pass_behind_one_that_was_left(tmp_path: Path) -> None:
    """``batches_done`` ahead of a pass is of that pass, also where the loop has left the one before it."""

    def body(training: Training) -> None:
        loader, ckpt = _loader(4), training.ckpt
        for _ in ckpt.epochs(range(2)):
            for _ in range(2):
                for number, batch in enumerate(ckpt.batches(loader), ckpt.batches_done):
                    training.gather(batch)
                    numbers.append(number)
                    if number == 2:
                        break
                assert ckpt.batches_done == 3

    numbers: list[int] = []
    train(body, tmp_path)
    assert numbers == [0, 1, 2] * 4
