"""Loaders that draw their order from a generator of their own: broken off at each step, the orders stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

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
