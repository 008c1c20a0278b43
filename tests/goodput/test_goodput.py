"""A short slice of ``python -m tests.goodput``."""

from __future__ import annotations

import pytest

from tests.goodput.play import play


@pytest.mark.slow
def test_kills_cost_little_under_vl_run(tmp_path) -> None:
    """Killed three seconds after each first step, `vl run` goes ever further; stock restarts get nowhere."""
    stock, ours = "stock Trainer, started again", "`vl run`, the same script"
    found = {
        way: play(way, tmp_path / str(len(way)), 27.0, 3.0, from_first_step=True) for way in (stock, ours)
    }
    assert all(one.kills >= 2 for one in found.values())
    # Stock ends where its last start got to, in three seconds at most; ours stands on what the ones before have saved.
    assert found[ours].reached > 35
    assert found[stock].reached <= 35
    assert found[ours].trained - found[ours].reached <= 25 * found[ours].kills
