"""What the tests of the seam share: the uninterrupted run that all others are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.kit.disks import small_disk_at
from tests.trainer.kit import STEPS, trainer, weights


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run of the stock Trainer, in ``folder``."""

    folder: Path
    weights: str
    history: list[dict[str, Any]]
    metrics: dict[str, float]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The common schedule, trained by stock transformers without a stop."""
    folder = tmp_path_factory.mktemp("reference")
    stock = trainer(folder, cls=transformers.Trainer)
    output = stock.train()
    assert output.global_step == STEPS
    return Reference(folder, weights(stock.model), stock.state.log_history, output.metrics)


@pytest.fixture(autouse=True)
def _short_flush(_no_vault_variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flush outlasts a test's patience."""
    monkeypatch.setenv("VAULTLAYER_FLUSH_TIMEOUT", "45")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with small_disk_at(tmp_path / "small", "24m") as folder:
        yield folder


@pytest.fixture
def no_time_in_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of transformers 4 hold the time at which they were made, in the folder of their logs."""
    if hasattr(transformers.training_args, "default_logdir"):
        monkeypatch.setattr(transformers.training_args, "default_logdir", lambda: "runs")
