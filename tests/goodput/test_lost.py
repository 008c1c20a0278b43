"""A share of ``python -m tests.goodput.lost``: no kill costs more than what was trained since the newest save."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.goodput.lost import WAYS, WITHIN_A_SAVE, losses_on, play
from tests.trainer.killed_behind_save import SAVE_EVERY


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_kill_costs_more_than_stock(tmp_path: Path, no_aws: None) -> None:
    """However a training is kept, and where: a kill behind a step, or within a save, costs what stock's would."""
    behind, within = (7, 12, 25), (8,)
    with losses_on(tmp_path, s3=True) as losses:
        lost = play(losses, WAYS, behind, 2)
        torn = play(losses, WITHIN_A_SAVE, within, 2)
    assert lost == {way: [step % SAVE_EVERY for step in behind] for way in WAYS}
    assert torn == {way: [0] for way in WITHIN_A_SAVE}
