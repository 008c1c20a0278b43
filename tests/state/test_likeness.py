"""How two runs differ, as far as their numbers follow from it."""

from __future__ import annotations

import pytest

from vaultlayer_hf.state.data.likeness import data_differences


@pytest.mark.parametrize(
    ("then", "now", "draw", "said"),
    [(0, 2, False, True), (2, 0, False, True), (1, 2, False, False), (1, 2, True, True), (2, 2, True, False)],
)
def test_another_number_of_workers(then: int, now: int, draw: bool, said: bool) -> None:
    """Where workers don't draw their number is nobody's concern; of what this process drew itself nothing is known."""
    words, holds = data_differences({"worker processes": then}, {"worker processes": now}, workers_draw=draw)
    assert (words == [f"worker processes: {then} then, {now} now"]) is said
    assert holds
