"""A place in the data as it is written: what its moments have in common is written once, and nothing is lost by it."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy
import pytest
import torch

from vaultlayer_hf.state.data.position import Moment, Position, content_of, position_from
from vaultlayer_hf.state.random_state import put_random_state, take_random_state

DRAWS: dict[str, Any] = {
    "python": random.random,
    "numpy": numpy.random.random,
    "torch": lambda: torch.rand(1),
}


def _drawn() -> list[float]:
    return [float(draw()) for draw in DRAWS.values()]


def _written(position: Position) -> tuple[Position, int]:
    """Return a position as it is read back, and the bytes that it takes."""
    file = io.BytesIO()
    torch.save(content_of(position), file)
    return position_from(torch.load(io.BytesIO(file.getvalue()), weights_only=True)), len(file.getvalue())


def test_equal_random_states_are_written_once() -> None:
    """Three moments between which nothing was drawn take hardly more than one."""
    one, three = Position(begin=Moment(take_random_state())), Position()
    three.begin, three.now, three.ahead = (
        Moment(take_random_state()),
        Moment(take_random_state()),
        [Moment(take_random_state())],
    )
    assert _written(three)[1] < 1.1 * _written(one)[1]


@pytest.mark.parametrize("of", DRAWS)
def test_each_moment_keeps_its_own_random_state(of: str) -> None:
    """Whichever generator is drawn from in between, each moment brings back what it was noted with."""
    begin = Moment(take_random_state())
    first = _drawn()
    put_random_state(begin.random or {})
    DRAWS[of]()
    now = Moment(take_random_state())
    second = _drawn()
    read, _ = _written(Position(begin=begin, now=now, ahead=[now]))
    for moment, expected in ((read.now, second), (read.begin, first), (read.ahead[0], second)):
        put_random_state(moment.random or {})
        assert _drawn() == expected
