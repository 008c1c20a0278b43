"""Tensors that a loop carries: they come back where others hold them, however they were changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vaultlayer_hf import Checkpointer


def _ckpt(folder: Path, model: Any = None) -> Checkpointer:
    model = model if model is not None else torch.nn.Linear(1, 1)
    ckpt = Checkpointer(folder / "vault", output_dir=folder / "output", save_every=1, model=model)
    ckpt.resume()
    return ckpt


def test_one_that_an_optimizer_trains_stays_the_same(tmp_path: Path) -> None:
    """A tensor whose optimizer was made ahead of carry() is trained by it behind a resume, too."""

    def train(folder: Path, steps: int) -> list[float]:
        ckpt = _ckpt(folder)
        delta = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([delta], lr=0.1)
        delta, optimizer = ckpt.carry(lambda: {"delta": delta, "optimizer": optimizer})
        for _ in range(steps):
            (delta - 3).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            ckpt.step()
        ckpt.close()
        return delta.tolist()

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "broken", 2)
    assert train(tmp_path / "broken", 2) == whole


def test_two_names_of_one_tensor_that_are_two_later(tmp_path: Path) -> None:
    """Names that are one tensor's, or the model's, at the begin hold each its own behind a resume."""

    def start() -> tuple[Checkpointer, Any, Any]:
        model = torch.nn.Linear(1, 1)
        ckpt = _ckpt(tmp_path, model)
        now: dict[str, Any] = {"first": torch.zeros(1, requires_grad=True)}
        now["second"], now["third"] = now["first"], model.weight
        now["first"], now["second"], now["third"] = ckpt.carry(lambda: dict(now))
        return ckpt, now, model.weight

    ckpt, now, weight = start()
    before = weight.tolist()
    for name, value in (("first", 1.0), ("second", 2.0), ("third", 3.0)):
        shape = now[name].shape
        now[name] = torch.full(shape, value, requires_grad=True)
    ckpt.step()
    ckpt.close()
    ckpt, now, weight = start()
    ckpt.close()
    assert [now[name].flatten().tolist() for name in ("first", "second", "third")] == [[1], [2], [3]]
    assert weight.tolist() == before


class Table:
    """Holds a tensor that is kept where it has changed alone, for it is large."""

    def __init__(self, inference: bool) -> None:
        with torch.inference_mode(inference):
            self.rows = torch.zeros(1 << 19)


@pytest.mark.parametrize("inference", [False, True])
def test_a_large_one_that_torch_counts_no_version_of(tmp_path: Path, inference: bool) -> None:
    """What was written through ``.data``, or in inference mode, comes back."""
    for start in (0, 1, 2):
        ckpt, table = _ckpt(tmp_path), Table(inference)
        ckpt.carry(lambda table=table: {"table": table})
        assert table.rows[:2].tolist() == [start, 0]
        with torch.inference_mode(inference):
            table.rows.data[0] += 1
        ckpt.step()
        ckpt.close()
