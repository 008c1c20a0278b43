"""Slices of what is run by hand: the simulation over failure rates, and a real run with `auto`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cadence.__main__ import ALLOWED, WORLDS, compare
from tests.cadence.real import run
from tests.cadence.simulation import World
from vaultlayer_hf.cadence import IO_SHARE


@pytest.mark.slow
@pytest.mark.parametrize("world", [WORLDS[12], WORLDS[22]], ids=str)
def test_auto_beside_the_best_in_hindsight(world: World) -> None:
    """Goodput of `auto` is within 2 % of the best fixed cadence that keeps saves under 1 %, and so does it."""
    found, best, _ = compare(world, range(3))
    assert best[1].goodput - found.goodput <= ALLOWED
    assert found.stalled <= IO_SHARE


@pytest.mark.slow
def test_a_real_run_keeps_its_share(tmp_path: Path) -> None:
    """A run that knows from the log what saves cost: several commits, and saves under 1 % of the time."""
    run(tmp_path, 3.0, "1s")
    session, recorder = run(tmp_path, 16.0, "auto", max_loss=5.0)
    assert "measures" not in recorder.of("cadence")[-1].message
    assert len(recorder.of("commit")) >= 3
    assert session.pacer.share < IO_SHARE
