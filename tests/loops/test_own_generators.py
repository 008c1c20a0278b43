"""Loaders that draw their order from a generator of their own: broken off at each step, the orders stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler

from tests.loops.broken_off import Training, differing
from vaultlayer_hf import Checkpointer

EPOCHS, BATCHES = 3, 3


class Counting(RandomSampler):
    """Draws by the number of the pass, which it counts at the end of each."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self.turn = 0

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(len(self), generator=torch.Generator().manual_seed(self.turn)).tolist()
        self.turn += 1


def plain(rows: Any, **more: Any) -> Any:
    """torch's loader with a generator of its own."""
    return DataLoader(rows, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5), **more)


def with_workers(rows: Any) -> Any:
    """The same, with a process that fetches."""
    return plain(rows, num_workers=1)


def counting(rows: Any) -> Any:
    """A loader whose sampler counts its passes."""
    return DataLoader(rows, batch_size=4, sampler=Counting(rows))


def prepared(rows: Any) -> Any:
    """One that accelerate has prepared."""
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare(plain(rows))


def stateful(rows: Any) -> Any:
    """torchdata's, which keeps its position itself."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(rows, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5))


def by_epochs(ckpt: Checkpointer, loader: Any) -> Iterator[Any]:
    """The loop of a script with loops over epochs and batches."""
    for _ in ckpt.epochs(range(EPOCHS)):
        yield from ckpt.batches(loader)


def by_steps(ckpt: Checkpointer, loader: Any) -> Iterator[Any]:
    """The loop over steps."""
    for _, batch in ckpt.steps(loader, epochs=EPOCHS):
        yield batch


def train(folder: Path, make: Callable[[Any], Any], loop: Any, stop: int | None = None) -> list[float]:
    """Go on with a run in a folder, up to a step where a save ends it, or to its end; return what its batches were."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = make(torch.randn(4 * BATCHES, 8))
    ckpt = Checkpointer(
        str(folder / "vault"),
        model=model,
        optimizer=optimizer,
        save_every="none",
        output_dir=folder / "output",
    )
    step, seen = ckpt.resume(), []
    for batch in loop(ckpt, loader):
        seen.append(batch.sum().item())
        ckpt.step()
        step += 1
        if step == stop:
            ckpt.save()
            ckpt.close()
            return seen
    ckpt.finish()
    return seen


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("loop", [by_epochs, by_steps])
@pytest.mark.parametrize("make", [plain, with_workers, counting, prepared, stateful])
def test_orders_are_those_of_an_unbroken_run(tmp_path: Path, make: Any, loop: Any) -> None:
    """Broken off at whatever step, the last of a pass too, each later pass has the order of an unbroken run."""
    if make is stateful:
        pytest.importorskip("torchdata")
    whole = train(tmp_path / "whole", make, loop)
    assert len(whole) == EPOCHS * BATCHES
    for stop in range(1, len(whole)):
        folder = tmp_path / str(stop)
        assert train(folder, make, loop, stop) + train(folder, make, loop) == whole, f"broken off at {stop}"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_that_the_loop_draws_from_too(tmp_path: Path, workers: int) -> None:
    """One generator of the loader and of the loop's own code goes on as it was at the save."""

    def body(training: Training) -> None:
        own = torch.Generator().manual_seed(1)
        loader = DataLoader(range(3), shuffle=True, generator=own, num_workers=workers)
        for _ in training.ckpt.epochs(range(2)):
            for batch in training.ckpt.batches(loader):
                training.learn([batch + torch.randint(0, 9, (), generator=own)])

    assert differing(body, tmp_path, (2, 4) if workers else None) == {}


class Longer(Sampler[list[int]]):
    """Says that it has half as many batches as it gives."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[list[int]]:
        return iter(torch.randperm(4).reshape(4, 1).tolist())


def test_more_batches_than_the_length_says(tmp_path: Path) -> None:
    """Killed behind the last batch by a sampler's length, the run goes on with those behind it."""

    def body(training: Training) -> None:
        loader = DataLoader(range(4), batch_sampler=Longer())
        training.learn(batch for _, batch in training.ckpt.steps(loader, epochs=2))

    assert differing(body, tmp_path, (1, 2, 3, 6)) == {}


@pytest.mark.parametrize("made_anew", [False, True])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_generator_that_each_epoch_seeds(tmp_path: Path, made_anew: bool, workers: int) -> None:
    """Saved at an epoch's end, the next one has the order of the seed that the script gives it."""

    def body(training: Training) -> None:
        own = torch.Generator()
        loader = DataLoader(range(4), shuffle=True, generator=own, num_workers=workers)
        for epoch in training.ckpt.epochs(range(EPOCHS)):
            if made_anew:
                own = torch.Generator()
                loader = DataLoader(range(4), shuffle=True, generator=own, num_workers=workers)
            own.manual_seed(7 + epoch)
            training.learn(training.ckpt.batches(loader))

    assert differing(body, tmp_path, (2, 5, 9), every=4) == {}
