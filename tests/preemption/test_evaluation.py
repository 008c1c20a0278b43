"""Told to stop within an evaluation that outlasts the grace: what was complete at the step before it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.forks import ForkServer
from tests.preemption.launch import Told
from tests.preemption.test_runs import settings, two_ranks_work
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

SLOW_METRIC: dict[str, Any] = {"slow_metric": 50.0}
"""Seconds: longer than a test waits for an end."""


@pytest.mark.parametrize(
    ("way", "code"), [("SIGTERM", PREEMPTED), ("SIGINT", INTERRUPTED), ("aws", PREEMPTED)]
)
def test_in_a_metric(forks: ForkServer, tmp_path: Path, way: str, code: int) -> None:
    """One rank that waits in compute_metrics, told by a signal or by its cloud, saves and ends at once."""
    with Told(forks, tmp_path, settings=settings(way, grace=30.0), **SLOW_METRIC) as told:
        told.wait_for(lambda: told.find("measuring") is not None)
        told.tell(way, 0, 60)
        assert [outcome.code for outcome in told.end(30)] == [code], told.errors()
        assert told.committed() == [3]
        assert told.find("measured") is None, "the metric was left"
        assert "saves at step 3 and stops" in told.ending()


def test_a_far_deadline_leaves_the_evaluation_alone(forks: ForkServer, tmp_path: Path) -> None:
    """Where the kill is minutes away the metric comes to its end; what is saved then is of the next step."""
    with Told(forks, tmp_path, settings=settings("SIGTERM", grace=600.0), steps=5, slow_metric=3.0) as told:
        told.wait_for(lambda: told.find("measuring") is not None)
        told.tell("SIGTERM", 0, 0)
        assert told.codes() == [0], told.errors()
        assert told.find("measured")
        assert told.committed() == [4]


@pytest.mark.parametrize(
    "world",
    [
        1,
        pytest.param(
            2, marks=pytest.mark.skipif(not two_ranks_work(), reason="not with the oldest versions")
        ),
    ],
)
def test_between_two_batches(forks: ForkServer, tmp_path: Path, world: int) -> None:
    """One of the ranks is told: all leave the evaluation at one batch, save the step before it, and end."""
    with Told(forks, tmp_path, world, settings=settings("SIGTERM", grace=30.0), slow_rows=0.3) as told:
        told.wait_for(lambda: told.find("evaluating") is not None)
        told.tell("SIGTERM", world - 1, 0)
        assert [outcome.code for outcome in told.end(30)] == [PREEMPTED] * world, told.errors()
        assert told.committed() == [3]
        assert told.find("measuring") is None, "the evaluation was left"


def test_the_next_start_goes_on_behind_it(forks: ForkServer, tmp_path: Path) -> None:
    """Started again, the run goes on from the step of the evaluation and comes to its end."""
    with Told(forks, tmp_path, settings=settings("SIGTERM", grace=30.0), steps=5, **SLOW_METRIC) as told:
        told.wait_for(lambda: told.find("measuring") is not None)
        told.tell("SIGTERM", 0, 0)
        assert told.codes() == [PREEMPTED], told.errors()
    with Told(forks, tmp_path, steps=5) as told:
        assert told.codes() == [0], told.errors()
        steps = [note["step"] for note in told.notes() if "step" in note]
        assert steps == [1, 2, 3, 4, 5]
