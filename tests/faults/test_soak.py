"""A short soak; all of it is ``python -m tests.faults.soak``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import MOST_FILES, soak
from tests.forks import ForkServer


@pytest.mark.slow
def test_many_saves_with_faults_and_kills(forks: ForkServer, tmp_path: Path) -> None:
    """Nothing is lost or mixed, and memory, open files and the disk don't grow with the number of saves."""
    found = soak(forks, tmp_path, saves=70, kills=1, seed=4)
    assert found.good, str(found)
    assert found.attempts == 2
    assert found.faults > 3
    assert found.acknowledged > 8
    assert found.memory, "no attempt was long enough to tell"
    assert max(found.files) <= MOST_FILES
