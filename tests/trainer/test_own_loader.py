"""A Trainer whose DataLoader is a class of the script's own goes on in its data as an unbroken run does."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.trainer.kit import STEPS, Boom, FailAt, Patient, Recorder, Tokens, trainer, weights
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


class Pairs:
    """Joins the batches of two loaders: none of torch's, without a data set of its own."""

    def __init__(self, one: Any, other: Any) -> None:
        self.one, self.other = one, other

    def __len__(self) -> int:
        return len(self.one)

    def __iter__(self) -> Any:
        for one, other in zip(self.one, self.other, strict=True):
            yield {name: torch.cat([one[name], other[name]]) for name in one}


class Paired(Trainer):
    """Trains on such."""

    def get_train_dataloader(self) -> Any:
        return Pairs(super().get_train_dataloader(), super().get_train_dataloader())


class PairsOfData(Pairs):
    """Has a data set and no sampler, as a library's own loader may."""

    dataset = Tokens(8)


class PairedData(Trainer):
    """Trains on such."""

    def get_train_dataloader(self) -> Any:
        return PairsOfData(super().get_train_dataloader(), super().get_train_dataloader())


class Rows(IterableDataset):  # type: ignore[type-arg]
    """Rows without a length: four batches are a pass."""

    def __iter__(self) -> Any:
        rows = Tokens(8)
        return (rows[number] for number in range(8))


@pytest.mark.parametrize(
    ("cls", "data", "exact"),
    [(Trainer, Rows, True), (Paired, lambda: Tokens(8), False), (PairedData, lambda: Tokens(8), False)],
)
def test_no_data_end_the_training_at_a_resume(cls: Any, data: Any, exact: bool, tmp_path: Path) -> None:
    """Neither a stream at the end of a pass, nor a loader that nobody can look into: that one isn't exact, and said."""
    vault = tmp_path / "vault"
    for step in (5, 7, 0):
        callbacks = [Patient(vault), FailAt(step)] if step else []
        run = trainer(tmp_path / f"{step}", cls=cls, resume=vault, train_dataset=data(), callbacks=callbacks)
        seen = Recorder(run)
        with pytest.raises(Boom) if step else nullcontext():
            run.train()
    assert run.state.global_step == STEPS
    assert bool(seen.of("inexact")) != exact
    if exact:
        whole = trainer(tmp_path / "whole", train_dataset=data())
        whole.train()
        assert weights(run.model) == weights(whole.model)


def test_gradients_that_are_accumulated_over_a_save_are_said(tmp_path: Path) -> None:
    """No checkpoint holds them. Up to transformers 4.51 the last batches of an epoch leave such; here a script does."""

    class Accumulating(Trainer):
        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            for parameter in self.model.parameters():
                parameter.grad = torch.ones_like(parameter)
            super()._save_checkpoint(*args, **kwargs)

    vault = tmp_path / "vault"
    for max_steps in (2, 4):
        run = trainer(
            tmp_path / "a",
            cls=Accumulating,
            resume=vault,
            gradient_accumulation_steps=2,
            max_steps=max_steps,
        )
        seen = Recorder(run)
        run.train()
        said = [event.message for event in seen.of("inexact") if "gradients" in event.message]
        assert len(said) == max_steps // 2
