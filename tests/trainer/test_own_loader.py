"""A Trainer whose DataLoader is a class of the script's own goes on in its data as an unbroken run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, trainer, weights
from vaultlayer_hf.trainer.trainer import Trainer


class GeneratingLoader(DataLoader):  # type: ignore[type-arg]
    """Hands on what torch's iterator yields, from a generator, as ms-swift's does."""

    def __iter__(self) -> Any:
        yield from super().__iter__()


class OwnLoader(Trainer):
    """Has a loader of its own for its training, unknown to accelerate."""

    loader: Any = DataLoader

    def get_train_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(4)
        workers = self.args.dataloader_num_workers
        return self.loader(
            self.train_dataset,
            batch_size=2,
            shuffle=True,
            generator=generator,
            num_workers=workers,
            collate_fn=self.data_collator,
        )


class Generating(OwnLoader):
    """The same with a generator around torch's iterator."""

    loader = GeneratingLoader


@pytest.mark.parametrize(
    ("cls", "workers", "step", "accumulation"),
    [
        (Generating, 0, 3, 1),
        (OwnLoader, 0, 3, 1),
        (OwnLoader, 0, 3, 2),
        (Generating, 1, 3, 1),
        (Generating, 0, 5, 1),
        (Generating, 1, 5, 1),
        (OwnLoader, 0, 5, 1),
    ],
)
def test_a_loader_of_ones_own(cls: Any, workers: int, step: int, accumulation: int, tmp_path: Path) -> None:
    """Broken off within an epoch or at its end, the same batches follow, and each of them is followed."""
    more = {
        "dataloader_num_workers": workers,
        "gradient_accumulation_steps": accumulation,
        "train_dataset": Tokens(8 if accumulation == 1 else 12),
    }
    whole = trainer(tmp_path / "whole", cls=cls, **more)
    whole.train()
    vault = tmp_path / "vault"
    callbacks = [Patient(vault), FailAt(step)]
    with pytest.raises(Boom):
        trainer(tmp_path / "a", cls=cls, resume=vault, callbacks=callbacks, **more).train()
    again = trainer(tmp_path / "b", cls=cls, resume=vault, **more)
    seen = Recorder(again)
    again.train()
    assert not [event.message for event in seen.events if "followed" in event.message]
    assert weights(again.model) == weights(whole.model)
