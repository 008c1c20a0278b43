"""A slice of the simulation over failure rates, which is run by hand: ``python -m tests.cadence``.

The real run, ``python -m tests.cadence.real``, is measured, and so has no place among tests on a busy machine.
"""

from __future__ import annotations

import pytest

from tests.cadence.__main__ import ALLOWED, WORLDS, compare
from tests.cadence.simulation import World


@pytest.mark.slow
@pytest.mark.parametrize("world", [WORLDS[12], WORLDS[22], WORLDS[-3], WORLDS[-1]], ids=str)
def test_auto_beside_the_best_in_hindsight(world: World) -> None:
    """Goodput of `auto` is within 2 % of the best fixed cadence in hindsight."""
    found, _, best = compare(world, range(3))
    assert best[1].goodput - found.goodput <= ALLOWED
