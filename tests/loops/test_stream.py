"""A loader that a loop draws from with next() goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vaultlayer_hf import Checkpointer

BATCHES = 5


def batches_of(folder: Path, until: int, *, endless: bool, again_at: int = 0) -> tuple[int, list[Any]]:
    """Draw up to step ``until`` on this folder's vault, as a script does; the first step, and the batches drawn."""
    torch.manual_seed(3)
    loader = DataLoader(TensorDataset(torch.arange(2 * BATCHES)), batch_size=2, shuffle=True)
    model = torch.nn.Linear(1, 1)
    stream = Checkpointer.stream(loader, endless=endless)
    opened = stream if endless else iter(stream)
    ckpt = Checkpointer(str(folder / "vault"), output_dir=folder / "output", save_every=1, model=model)
    start = ckpt.resume()
    ckpt.carry(lambda: {"stream": stream})
    drawn = []
    for step in range(start, until):
        if again_at and step and step % again_at == 0:
            opened = iter(stream)
        try:
            (rows,) = next(opened)
        except StopIteration:
            opened = iter(stream)
            (rows,) = next(opened)
        drawn.append([rows.tolist(), torch.rand(1).item()])
        ckpt.step()
    ckpt.save()
    ckpt.close()
    return start, drawn


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("broken_at", [BATCHES - 2, BATCHES, BATCHES + 1])
def test_a_stream_goes_on_where_it_was(endless: bool, broken_at: int, tmp_path: Path) -> None:
    """Within a pass, at its last batch and behind it: batches, and what is drawn beside them, are an unbroken run's."""
    total = 3 * BATCHES - 1
    _, whole = batches_of(tmp_path / "whole", total, endless=endless)
    _, first = batches_of(tmp_path / "broken", broken_at, endless=endless)
    start, second = batches_of(tmp_path / "broken", total, endless=endless)
    assert start == broken_at
    assert first + second == whole
    assert sorted(row for rows, _ in whole[:BATCHES] for row in rows) == list(range(2 * BATCHES))


def test_a_pass_may_be_given_up_for_a_new_one(tmp_path: Path) -> None:
    """A script that opens its loader again by the count of its steps has a new pass there, behind a resume, too."""
    _, whole = batches_of(tmp_path / "whole", 9, endless=False, again_at=4)
    batches_of(tmp_path / "broken", 4, endless=False, again_at=4)
    _, rest = batches_of(tmp_path / "broken", 9, endless=False, again_at=4)
    assert rest == whole[4:]


def test_a_script_that_begins_with_a_later_epoch_by_itself_leaves_none_out_twice(tmp_path: Path) -> None:
    """A loop whose ``range`` starts with the epoch that the script's own file names trains each epoch once."""

    def train(first: int, last: int) -> list[int]:
        model = torch.nn.Linear(1, 1)
        ckpt = Checkpointer(str(tmp_path / "vault"), output_dir=tmp_path / "out", save_every=1, model=model)
        ckpt.resume()
        trained = []
        for epoch in ckpt.epochs(range(first, 6)):
            if epoch == last:
                break
            for _ in ckpt.batches([1, 2]):
                ckpt.step()
            trained.append(epoch)
        ckpt.close()
        return trained

    assert train(0, 3) == [0, 1, 2]
    assert train(3, 9) == [3, 4, 5]
