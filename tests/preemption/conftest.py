"""The fork server with the program imported; no VAULTLAYER_* variable of whoever runs the tests reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.forks import ForkServer


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts a process in tens of milliseconds."""
    with ForkServer("tests.preemption.preempted_training") as server:
        yield server
