"""Loaders whose worker processes persist, and that draw from a generator of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.loops.broken_off import Training, differing


@pytest.mark.parametrize("loaders", [1, 2])
@pytest.mark.parametrize("draws", [True, False], ids=["dropout", "nothing drawn"])
def test_a_generator_of_persistent_workers(tmp_path: Path, loaders: int, draws: bool) -> None:
    """Killed in a later pass than the workers were started in, the pass has the order of an unbroken run."""

    def body(training: Training) -> None:
        training.model.train(draws)
        made = [
            DataLoader(
                range(3),
                shuffle=True,
                generator=torch.Generator().manual_seed(3 + number),
                num_workers=1,
                persistent_workers=True,
            )
            for number in range(loaders)
        ]
        for _ in training.ckpt.epochs(range(2)):
            for loader in made:
                training.learn(training.ckpt.batches(loader))

    assert differing(body, tmp_path, (4, 5)) == {}
