"""A pass that a script's own resume began behind its first batches goes on behind them, though the loader is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer

ROWS, SKIPPED = 7, 2


def _run(folder: Path, stop: int, prepared: bool) -> tuple[list[tuple[int, int, int]], list[str], list[int]]:
    """Two epochs, of the first one without what was trained elsewhere; the rows with their numbers, words, lengths."""
    torch.manual_seed(4)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader: Any = DataLoader(range(ROWS), batch_size=1, shuffle=True)
    more: dict[str, Any] = {"model": model, "optimizer": optimizer}
    if prepared:
        accelerator = Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        more = {"accelerator": accelerator}
    ckpt = Checkpointer(folder / "vault", output_dir=folder / "output", save_every="none", **more)
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    own = not ckpt.resume()
    seen, lengths = [], []
    for epoch in ckpt.epochs(range(2)):
        active = skip_first_batches(loader, SKIPPED) if own and not epoch else loader
        batches = ckpt.batches(active)
        lengths.append(len(batches))
        for number, batch in enumerate(batches, ckpt.batches_done):
            seen.append((epoch, number, int(batch)))
            ckpt.step()
            if len(seen) == stop:
                ckpt.save()
                ckpt.close()
                return seen, said, lengths
    ckpt.finish()
    return seen, said, lengths


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_no_batch_is_trained_on_twice(tmp_path: Path, stop: int, prepared: bool) -> None:
    """The batches left out at first are left out behind a resume, also the second one, and numbered as they were."""
    whole, _, lengths = _run(tmp_path / "whole", 99, prepared)
    assert lengths == [ROWS - SKIPPED, ROWS]
    first, _, _ = _run(tmp_path / "broken", stop, prepared)
    second, said, _ = _run(tmp_path / "broken", 1, prepared)
    rest, more, lengths = _run(tmp_path / "broken", 99, prepared)
    assert first + second + rest == whole
    assert not [text for text in said + more if "may differ" in text]
    done = stop + 1
    assert lengths[0] == (ROWS - SKIPPED - done if done < ROWS - SKIPPED else 2 * ROWS - SKIPPED - done)
