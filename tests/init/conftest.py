"""A fork server that has imported what the scripts import."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from tests.forks import ForkServer


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Forks a run in tens of milliseconds; its runs die with it."""
    trl = ["trl.trainer.sft_trainer"] if importlib.util.find_spec("trl") else []
    with ForkServer("tests.init.program", "accelerate", "tqdm", "torch.optim.swa_utils", *trl) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_vault_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No VAULTLAYER_* variable of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("VAULTLAYER_"):
            monkeypatch.delenv(name)
