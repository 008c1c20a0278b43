"""A short slice of ``python -m tests.goodput``."""

from __future__ import annotations

import pytest

from tests.goodput.under_kills import train_under_kills


@pytest.mark.slow
def test_kills_cost_little_under_vl_run(tmp_path) -> None:
    """Killed 30 steps after each first one, `vl run` goes ever further; stock restarts get nowhere."""
    stock, ours = "stock Trainer, started again", "`vl run`, the same script"
    found = {
        way: train_under_kills(way, tmp_path / str(len(way)), 240.0, life=30, kills=3)
        for way in (stock, ours)
    }
    assert all(one.kills == 3 for one in found.values())
    # Stock ends where its last start got to; ours stands on the saves of those before, one each 20 steps.
    assert 30 <= found[stock].reached < 40
    assert found[ours].reached >= 3 * 20 + 10
    assert found[ours].trained - found[ours].reached <= 25 * found[ours].kills
