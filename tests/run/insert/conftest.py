"""A fork server that has imported what the scripts import."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from tests.forks import ForkServer

PRELOADED = (
    *("tests.run.insert.run_script", "accelerate", "tqdm", "torch.optim.swa_utils"),
    *(["trl.trainer.sft_trainer"] if importlib.util.find_spec("trl") else []),
)
"""What the fork server imports."""


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Forks a run in tens of milliseconds; its runs die with it."""
    with ForkServer(*PRELOADED) as server:
        yield server
