"""A loader that keeps its own place, given to add(), while the script goes through it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event

stateful = pytest.importorskip("torchdata.stateful_dataloader")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
STEPS = 12


def play(
    tmp_path: Path, steps: int, *, seed: int = 1, early: bool = False, **more: Any
) -> tuple[list[Any], list[str]]:
    """Go on up to a step; return what each saw and drew, and what was said. ``early``: opened ahead of resume()."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(2, 1)
    loader = stateful.StatefulDataLoader(range(8), batch_size=2, shuffle=True, **more)
    ckpt = Checkpointer(tmp_path / "v", model=model, output_dir=tmp_path / "o", save_every="none")
    ckpt.add("loader", loader)
    said: list[Event] = []
    listen(ckpt, said.append)
    batches: Iterator[Any] = iter(loader) if early else iter(())
    seen = []
    try:
        step = ckpt.resume()
        while step < steps:
            for batch in batches if early else loader:
                seen.append((step, batch.tolist(), torch.rand(()).item()))
                ckpt.step()
                step += 1
                if step >= steps:
                    break
            batches = iter(loader) if early else batches
        ckpt.save()
    finally:
        ckpt.close()
    return seen, [event.message for event in said if event.kind == "inexact"]


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_batches_and_random_numbers_go_on(tmp_path: Path, stop: int) -> None:
    """Broken off within a pass, at its end and behind it: the same batches, and the loop draws the same numbers."""
    whole, _ = play(tmp_path / "whole", STEPS)
    first, _ = play(tmp_path / "broken", stop)
    rest, said = play(tmp_path / "broken", STEPS, seed=2)
    assert first + rest == whole
    assert said == []


def test_what_does_not_come_back_is_said(tmp_path: Path) -> None:
    """Of an iterator that was open ahead of the load, and of worker processes that draw."""
    play(tmp_path, 3)
    _, said = play(tmp_path, 4, early=True)
    assert [text for text in said if "loader: it was opened before the load" in text]
    _, said = play(tmp_path / "b", 3, num_workers=1)
    assert said == []
    _, said = play(tmp_path / "b", 4, num_workers=1)
    assert [text for text in said if "loader: a StatefulDataLoader doesn't keep what is drawn in" in text]
