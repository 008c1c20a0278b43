"""A script's own loops over epochs and batches, led by ``epochs()`` and ``batches()``, go on as if nothing had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, Settings, SettingsError, open_vault

EPOCHS, ROWS = 3, 6


class Count:
    """State that the code behind an epoch's batches changes, as a schedule by epochs does."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


class StopHere(Exception):
    """The interruption."""


def walk(
    folder: Path, stop: int | None = None, every: int = 1, epochs: int = EPOCHS, limit: int = ROWS
) -> tuple[list[Any], list[Any], Count]:
    """Go through the data as scripts do; return what was seen of it, what each epoch ended with, and the count."""
    torch.manual_seed(3)
    ckpt = Checkpointer(
        Settings(vault=str(folder / "vault"), keep_last=None, resume_timeout=2.0),
        output_dir=folder / "output",
        save_every=every,
    )
    count, seen, ends = Count(), [], []
    ckpt.add("count", count)
    ckpt.resume()
    try:
        for epoch in ckpt.epochs(range(1, epochs + 1)):
            order = torch.randperm(ROWS)  # drawn by hand, ahead of the batches
            loader = DataLoader(order.tolist(), batch_size=None, shuffle=True)
            for number, row in enumerate(ckpt.batches(loader), ckpt.batches_done):
                if number == limit:
                    break
                seen.append((epoch, number, row, torch.rand(()).item()))
                ckpt.step()
                if len(seen) == stop:
                    raise StopHere
            count.value += 1
            ends.append((epoch, row, torch.rand(()).item()))
    except StopHere:
        ckpt.close()
    else:
        ckpt.finish()
    return seen, ends, count


@pytest.mark.parametrize("every", [1, 2, 6])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path: Path, every: int) -> None:
    """Batches, random numbers and the code around an epoch's batches are as in an unbroken run, wherever it stopped."""
    seen, ends, _ = walk(tmp_path / "whole", every=every)
    assert len(seen) == EPOCHS * ROWS
    for stop in (1, 6, 9, 18):
        folder = tmp_path / str(stop)
        assert walk(folder, stop=stop, every=every)[0] == seen[:stop]
        with open_vault(str(folder / "vault")) as vault:
            steps = [commit.step for commit in vault.checkpoints()]
        newest = steps[-1] if steps else 0
        rest, later, count = walk(folder, every=every)
        assert rest == seen[newest:], (stop, newest)
        assert later == ends[-len(later) :]
        assert count.value == EPOCHS, "the code behind an epoch's batches runs once for each epoch"


def test_a_save_at_the_last_batch_waits_for_the_end_of_the_epoch(tmp_path: Path) -> None:
    """The code behind the batches finds what they have left, also right after a resume: no epoch goes on empty."""
    walk(tmp_path, stop=ROWS + 1, every=ROWS)  # a step into the second epoch
    with open_vault(str(tmp_path / "vault")) as vault:
        assert [commit.step for commit in vault.checkpoints()] == [ROWS]
    seen, _, _ = walk(tmp_path, every=ROWS)
    assert seen[0][:2] == (2, 0)


def test_batches_left_by_break_belong_to_their_epoch(tmp_path: Path) -> None:
    """A script that takes some batches of each epoch gets as many of the next one, and is resumed so."""
    seen, _, _ = walk(tmp_path / "whole", limit=4)
    assert [one[:2] for one in seen] == [(epoch, number) for epoch in (1, 2, 3) for number in range(4)]
    walk(tmp_path / "torn", stop=6, limit=4)
    assert walk(tmp_path / "torn", limit=4)[0] == seen[6:]


def test_a_finished_run_has_nothing_left_and_can_be_made_longer(tmp_path: Path) -> None:
    """Started again after its end it trains nothing; with more epochs it does those."""
    seen, _, _ = walk(tmp_path / "five", epochs=5)
    walk(tmp_path / "three")
    assert walk(tmp_path / "three")[0] == []
    assert walk(tmp_path / "three", epochs=5)[0] == seen[EPOCHS * ROWS :]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_loop_that_was_left_goes_on_where_its_step_is_named(
    by_hand: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Left by ``break`` it stays over, whoever has saved last; the log names the step by which it goes on there."""

    def epochs_of(vault: str, patience: int) -> list[int]:
        ckpt = Checkpointer(
            Settings(vault=vault, keep_last=None), output_dir=tmp_path / "output", save_every="none"
        )
        ckpt.add("count", Count())
        ckpt.resume()
        bad, seen = 0, []
        (bad,) = ckpt.carry(lambda: {"bad": bad})
        for epoch in ckpt.epochs(range(10)):
            for _ in ckpt.batches([1, 2]):
                ckpt.step()
            bad += 1
            seen.append(epoch)
            if by_hand:
                ckpt.save()
            if bad == patience:
                break
        ckpt.finish()
        return seen

    vault = str(tmp_path / "vault")
    assert epochs_of(vault, 2) == [0, 1]
    with caplog.at_level("INFO", "vaultlayer_hf"):
        assert epochs_of(vault, 4) == []
    assert f"with more patience, say, name file://{vault}@4" in caplog.text
    for seen in ([2, 3], []):
        assert epochs_of(f"{vault}@4", 4) == seen


def test_a_finished_run_of_one_pass_trains_nothing_more(tmp_path: Path) -> None:
    """A script without epochs that is started again after its end has no batches; one that asks for more has some."""
    for expected in ([1, 2], []):
        ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "output", save_every="none")
        ckpt.add("count", Count())
        ckpt.resume()
        left, done = ckpt.batches([1, 2]), []
        assert len(left) == len(expected)
        for one in left:
            done.append(one)
            ckpt.step()
        assert done == expected
        if not expected:
            assert list(ckpt.batches([1, 2])) == [1, 2]
        ckpt.finish()


def test_a_run_that_was_left_early_stays_finished(tmp_path: Path) -> None:
    """Early stopping by ``break`` ends the run: started again, it does no more epochs."""
    for expected in ([0, 1], []):
        ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "output", save_every=1)
        ckpt.add("count", Count())
        ckpt.resume()
        done = []
        for epoch in ckpt.epochs(range(5)):
            for _ in ckpt.batches([1, 2]):
                ckpt.step()
            done.append(epoch)
            if epoch == 1:
                break
        ckpt.finish()
        assert done == expected


def test_code_behind_steps_of_one_epoch_is_named(tmp_path: Path) -> None:
    """Called for each epoch, steps() says behind a resume that the code between its calls runs again; else nothing."""

    def course(stop: int | None, together: bool = False) -> list[str]:
        said: list[str] = []
        ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "out", save_every=1)
        listen(ckpt, lambda event: said.append(event.message))
        ckpt.resume()
        for _ in range(1 if together else 3):
            for step, _ in ckpt.steps(DataLoader(range(2)), epochs=3 if together else None):
                ckpt.step()
                if step + 1 == stop:
                    ckpt.close()
                    return [text for text in said if "ran once more" in text]
        ckpt.finish()
        return [text for text in said if "ran once more" in text]

    assert course(3) == []
    assert course(4, together=True) == []
    assert len(course(None)) == 1


def test_progress_bars_see_how_many_are_left(tmp_path: Path) -> None:
    """``len()`` of the batches is the number of those still to come."""
    walk(tmp_path, stop=2)
    ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "output", save_every=1)
    ckpt.add("count", Count())
    ckpt.resume()
    for _ in ckpt.epochs(range(EPOCHS)):
        assert (len(ckpt.batches(range(ROWS))), ckpt.batches_done) == (ROWS - 2, 2)
        break
    ckpt.close()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_pass_that_its_last_step_leaves_is_over_behind_a_resume(tmp_path: Path, workers: int) -> None:
    """Saved at the step behind which the loop leaves its pass, the run goes on with the code behind that pass."""

    def run(folder: Path, stop: int) -> list[Any]:
        torch.manual_seed(3)
        seen: list[Any] = []
        ckpt = Checkpointer(str(folder / "vault"), output_dir=folder / "out", save_every="none")
        ckpt.add("count", Count())
        ckpt.resume()
        loader = DataLoader(list(range(ROWS)), shuffle=True, num_workers=workers)
        for epoch in ckpt.epochs(range(EPOCHS)):
            for number, row in enumerate(ckpt.batches(loader), ckpt.batches_done):
                seen.append((epoch, row.item(), torch.rand(()).item()))
                ckpt.step(last=number == 2)
                if len(seen) == stop:
                    ckpt.save()
                    ckpt.close()
                    return seen
                if number == 2:
                    break
            seen.append((epoch, torch.rand(()).item()))
        ckpt.finish()
        return seen

    whole = run(tmp_path / "whole", 0)
    assert len(whole) == EPOCHS * 4
    for stop in (2, 3, 7):
        folder = tmp_path / str(stop)
        assert run(folder, stop) + run(folder, 0) == whole


class Staged(torch.utils.data.Dataset[Any]):
    """Items that tell which pass it is, what the loop has set ahead of it, and how many came before."""

    def __init__(self) -> None:
        self.epoch = self.level = self.count = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        self.count += 1
        return self.epoch, self.level, self.count


def stage(folder: Path, stop: int | None = None) -> list[Any]:
    """Go through such data, in passes that the loop tells it; return what came."""
    ckpt = Checkpointer(Settings(vault=str(folder / "vault")), output_dir=folder / "output", save_every=1)
    start, seen = ckpt.resume(), []
    data = Staged()
    loader = DataLoader(data, batch_size=None)
    try:
        for epoch in ckpt.epochs(range(EPOCHS)):
            data.set_epoch(epoch)
            data.level = epoch * 10
            for item in ckpt.batches(loader):
                seen.append(item)
                if start + len(seen) == stop:
                    raise StopHere
                ckpt.step()
    except StopHere:
        ckpt.close()
    else:
        ckpt.finish()
    return seen


def test_numbers_that_a_loop_sets_ahead_of_a_pass_are_that_passes(tmp_path: Path) -> None:
    """Wherever it stopped, the data have the number of the pass under way, and go on counting."""
    whole = stage(tmp_path / "whole")
    for stop in (4, ROWS + 1, ROWS + 3, 2 * ROWS + 1):
        folder = tmp_path / str(stop)
        assert stage(folder, stop) == whole[:stop]
        with open_vault(str(folder / "vault")) as vault:
            newest = vault.checkpoints()[-1].step
        assert stage(folder) == whole[newest:], (stop, newest)


class _TwoPasses:
    """Epochs of two passes, through two loaders, with a random number for each batch."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(3)
        self.ckpt = Checkpointer(str(folder / "vault"), output_dir=folder / "output", save_every=1)
        self.loaders = [DataLoader(range(start, start + 4), shuffle=True) for start in (0, 10)]
        self.seen: list[Any] = []

    def walk(self, stop: int | None = None) -> list[Any]:
        """Go through the data; broken off, as by a kill, behind ``stop`` batches."""
        self.ckpt.resume()
        for epoch in self.ckpt.epochs(range(3)):
            for loader in self.loaders:
                total = 0
                (total,) = self.ckpt.carry(lambda: {"total": total}, in_pass=True)  # noqa: B023  the one of now
                for row in self.ckpt.batches(loader):
                    total += int(row)
                    self.seen.append((epoch, int(row), total, torch.rand(()).item()))
                    self.ckpt.step()
                    if len(self.seen) == stop:
                        self.ckpt.close()
                        return self.seen
        self.ckpt.finish()
        return self.seen


@pytest.mark.parametrize("stop", [2, 6, 11, 14])
def test_an_epoch_of_two_passes(tmp_path: Path, stop: int) -> None:
    """A resume in the second pass of an epoch goes on there: no batch is lost, or given twice."""
    whole = _TwoPasses(tmp_path / "whole").walk()
    first = _TwoPasses(tmp_path / "broken").walk(stop)
    assert first + _TwoPasses(tmp_path / "broken").walk() == whole


def test_a_pass_within_a_pass_is_refused(tmp_path: Path) -> None:
    """Two passes at once have two places, of which a checkpoint keeps one."""
    ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "output", save_every="none")
    ckpt.resume()
    both = zip(ckpt.batches(DataLoader(range(3))), ckpt.batches(DataLoader(range(3))), strict=True)
    with pytest.raises(SettingsError, match=r"goes on behind another one.*Checkpointer\.stream"):
        list(both)
    ckpt.close()
