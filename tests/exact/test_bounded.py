"""What is noted of a pass stays small, however long no checkpoint is saved."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exact.material import arguments, model, padded, scenario
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.trainer.trainer import Trainer

AHEAD = 6
"""Batches of two workers that may be under way between loader and loop."""


class Alive:
    """Counts batches that still are in memory."""

    def __init__(self) -> None:
        self.most, self.seen = 0, 0
        self._batches: list[weakref.ref[torch.Tensor]] = []

    def add(self, batch: torch.Tensor) -> None:
        """Take note of a batch, and of how many others are there."""
        self.seen += 1
        self._batches = [one for one in self._batches if one() is not None]
        self._batches.append(weakref.ref(batch))
        self.most = max(self.most, len(self._batches))


@pytest.mark.parametrize("name", ["2 workers", "random augmentation, 2 workers", "persistent workers"])
def test_a_trainer_keeps_no_batches(tmp_path: Path, name: str) -> None:
    """Batches of worker processes are let go one by one, not at the next save: each holds memory and an open file."""
    alive = Alive()

    class Watched(Trainer):
        def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> torch.Tensor:
            alive.add(inputs["input_ids"])
            return super().training_step(model, inputs, *rest)

    one = scenario(name)
    trainer = Watched(
        model=model(),
        args=arguments(one, tmp_path / "output", max_steps=40, save_steps=40),
        train_dataset=one.data(),
        data_collator=padded,
        resume=str(tmp_path / "vault"),
    )
    trainer.train()
    assert alive.seen == 40
    assert alive.most <= AHEAD


def test_a_loop_keeps_no_batches(tmp_path: Path) -> None:
    """The same for an own loop."""
    alive = Alive()
    one = scenario("random augmentation, 2 workers")
    loader = torch.utils.data.DataLoader(one.data(), batch_size=1, num_workers=2, collate_fn=padded)
    ckpt = Checkpointer(
        str(tmp_path / "vault"), model=model(), dataloader=loader, output_dir=tmp_path / "output"
    )
    for _, batch in ckpt.steps(loader, start=ckpt.resume()):
        alive.add(batch["input_ids"])
        ckpt.step()
    ckpt.finish()
    assert alive.seen == 22
    assert alive.most <= AHEAD
