"""A slice of the kill campaign over several ranks; whole: ``python -m tests.ranks.campaign``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ranks.campaign import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("beside", ["", "well"])
def test_a_slice_of_the_campaign(tmp_path: Path, chance: random.Random, beside: str) -> None:
    """Killed at any instant, one rank or all, on any of their disks: no commit is lost, and no resume is wrong."""
    tally = run(12 if not beside else 6, chance.randrange(2**32), 2, ["ddp"], tmp_path, beside=beside)
    print(tally.words())
    assert tally.failed == []
    assert tally.kills >= 6
    assert not (beside and tally.torn)
