"""What the tests of loops share."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.parts import shared_memory
from tests.forks import ForkServer


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """A fork server that has imported the program and accelerate; its runs die with it."""
    with ForkServer("tests.loops.program", "accelerate") as server:
        yield server


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: a kill of a process can't lose what a disk would lose."""
    with tempfile.TemporaryDirectory(prefix="vl-loops-", dir=shared_memory()) as folder:
        yield Path(folder)


@pytest.fixture
def chance() -> random.Random:
    """Random numbers from a seed that is printed; ``VAULTLAYER_TEST_SEED`` repeats a run."""
    seed = int(os.environ.get("VAULTLAYER_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"VAULTLAYER_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _no_vault_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No VAULTLAYER_* variable of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("VAULTLAYER_") and name != "VAULTLAYER_TEST_SEED":
            monkeypatch.delenv(name)
