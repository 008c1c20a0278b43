"""A short slice of ``python -m tests.goodput``."""

from __future__ import annotations

import dataclasses

import pytest

from tests.goodput.spent import Spent, Step, spent_beside
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


def test_where_the_time_went_adds_up() -> None:
    """Steps that count and all that is beside them are the whole time; a save is told from what else lies between."""
    steps = [
        Step(at, number, pid) for at, number, pid in [(3.0, 1, 7), (4.5, 2, 7), (6.0, 3, 7), (9.0, 3, 8)]
    ]
    spent = spent_beside(steps, 0.0, [6.5], 9.5, 1.0, 2)
    assert spent == Spent(start=2.0, restarts=1.5, lost=2.0, saves=0.5, between=0.5)
    assert steps[-1].number * 1.0 + sum(dataclasses.astuple(spent)) == 9.5
