"""What the tests of loops share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.parts import shared_memory
from tests.forks import ForkServer
from tests.kit.disks import small_disk_at


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """A fork server that has imported the program and accelerate; its runs die with it."""
    with ForkServer("tests.loops.killed_loop", "accelerate") as server:
        yield server


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: a kill of a process can't lose what a disk would lose."""
    with tempfile.TemporaryDirectory(prefix="vl-loops-", dir=shared_memory()) as folder:
        yield Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    with small_disk_at(tmp_path / "small", "12m") as folder:
        yield folder
