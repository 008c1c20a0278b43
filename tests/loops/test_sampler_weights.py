"""Weights by which a sampler draws rows, and which the loop changes: they go on as the data's place does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event, EventKind

ROWS, EPOCHS = 6, 3
KINDS = ("in place", "another tensor", "at an epoch's end", "ahead of a pass")


class Training:
    """Rows that are drawn the more often the higher their losses are."""

    def __init__(self, folder: Path, kind: str, *, by_steps: bool = False, **more: Any) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.kind, self.chosen = kind, torch.ones(ROWS, dtype=torch.double)
        self.sampler = WeightedRandomSampler(self.chosen, ROWS)  # type: ignore[arg-type] # torch takes a tensor, too
        rows = [(number, row) for number, row in enumerate(torch.randn(ROWS, 3))]
        self.loader = DataLoader(rows, batch_size=2, sampler=self.sampler, **more)
        self.losses = [1.0] * ROWS
        self.by_steps = by_steps
        self.start = 0
        self.seen: list[list[int]] = []
        self.said: list[Event] = []
        self.ckpt = Checkpointer(
            str(folder / "vault"),
            model=self.model,
            optimizer=self.optimizer,
            save_every=1,
            output_dir=folder / "out",
        )
        listen(self.ckpt, self.said.append)

    def weigh(self) -> None:
        """Weigh the rows by their losses."""
        if self.kind == "in place":
            self.sampler.weights[:] = torch.tensor(self.losses)
        else:
            self.sampler.weights = torch.tensor(self.losses, dtype=torch.double)

    def run(self, stop: int | None = None) -> None:
        """Train; broken off, as by a kill, behind ``stop`` steps."""
        self.start = done = self.ckpt.resume()
        (self.losses,) = self.ckpt.carry(lambda: {"losses": self.losses})
        if self.by_steps:
            for _, (numbers, rows) in self.ckpt.steps(self.loader, epochs=EPOCHS):
                done += 1
                self.train(numbers, rows)
                if done == stop:
                    self.ckpt.close()
                    return
            self.ckpt.finish()
            return
        for epoch in self.ckpt.epochs(range(EPOCHS)):
            if self.kind == "ahead of a pass" and epoch:
                self.weigh()
            for numbers, rows in self.ckpt.batches(self.loader):
                done += 1
                self.train(numbers, rows)
                if done == stop:
                    self.ckpt.close()
                    return
            if self.kind == "at an epoch's end":
                self.weigh()
        self.ckpt.finish()

    def train(self, numbers: torch.Tensor, rows: torch.Tensor) -> None:
        """Make one step."""
        losses = self.model(rows).pow(2)
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        for number, loss in zip(numbers.tolist(), losses.flatten().tolist(), strict=True):
            self.losses[number] = loss
        if self.kind in KINDS[:2]:
            self.weigh()
        self.seen.append(numbers.tolist())
        self.ckpt.step()

    def result(self) -> tuple[list[float], list[float]]:
        """What it ends with."""
        return self.model.weight.flatten().tolist(), self.sampler.weights.tolist()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_save_at_a_passs_last_batch(tmp_path: Path, kind: str) -> None:
    """A loop over steps() saves there within the pass: the next one is drawn by the weights of then, in any pass."""
    whole = Training(tmp_path / "whole", kind, by_steps=True)
    whole.run()
    for stop in range(1, len(whole.seen)):
        folder = tmp_path / str(stop)
        Training(folder, kind, by_steps=True).run(stop)
        again = Training(folder, kind, by_steps=True)
        again.run()
        assert again.seen == whole.seen[again.start :], stop
        assert again.result() == whole.result(), stop


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_comes_as_in_an_unbroken_run(tmp_path: Path, kind: str) -> None:
    """Broken off behind any step, within a pass or at its end: the same rows, and nothing is said."""
    whole = Training(tmp_path / "whole", kind)
    whole.run()
    for stop in range(1, len(whole.seen)):
        folder = tmp_path / str(stop)
        Training(folder, kind).run(stop)
        again = Training(folder, kind)
        again.run()
        assert again.seen == whole.seen[again.start :], stop
        assert again.result() == whole.result(), stop
        assert not [one.message for one in again.said if one.kind is EventKind.INEXACT]


def test_broken_off_several_times(tmp_path: Path) -> None:
    """A start goes on from what another one had put back."""
    whole = Training(tmp_path / "whole", "in place")
    whole.run()
    for stop in (2, 3, 4, 7, None):
        training = Training(tmp_path / "broken", "in place")
        training.run(stop)
    assert training.seen == whole.seen[training.start :]
    assert training.result() == whole.result()


def test_a_tensor_that_is_replaced_stays_as_it_is(tmp_path: Path) -> None:
    """Where the loop gives the sampler another tensor, a resume writes nothing into the script's first one."""
    for stop in (4, None):
        training = Training(tmp_path, "another tensor")
        training.run(stop)
    assert training.chosen.tolist() == [1.0] * ROWS


def test_workers_that_fetch_ahead(tmp_path: Path) -> None:
    """The rest of a pass that worker processes fetch ahead is drawn by what the pass was begun with."""
    whole = Training(tmp_path / "whole", "in place", num_workers=1)
    whole.run()
    for stop in (4, None):
        training = Training(tmp_path / "broken", "in place", num_workers=1)
        training.run(stop)
    assert training.seen == whole.seen[training.start :]


def test_weights_that_nobody_changes_are_the_scripts(tmp_path: Path) -> None:
    """A start with other weights than the run began with draws by its own."""
    Training(tmp_path, "none").run(3)
    again = Training(tmp_path, "none")
    again.chosen[1:] = 0
    again.run()
    assert {number for numbers in again.seen for number in numbers} == {0}
