"""Real processes that are told to stop, by real signals and by a metadata server: what they save, and how they end.

The whole table, each way of telling with a deadline that is long enough and one that is too short, on one rank and on
two: ``python -m tests.preemption``. The slow tests are a part of it in which each way comes up with both.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.preemption.launch import SLOW, Told
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

WAYS = ("SIGTERM", "SIGUSR1", "aws", "gcp", "azure")


def two_ranks_work() -> bool:
    """The oldest versions can't train several CPU ranks."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def settings(way: str, **more: object) -> dict[str, object]:
    """Settings under which a way of telling is heard."""
    if way.startswith("SIG"):
        return {"signals": f"SIGTERM,SIGINT,{way}", "notices": "none", **more}
    return {"notices": way, **more}


def check_long_enough(forks: ForkServer, folder: Path, way: str, world: int) -> None:
    """Tell the last rank, with time enough: all save at one step, it is committed, and all end with code 75."""
    with Told(forks, folder, world, settings=settings(way, grace=20.0)) as told:
        for rank in range(world):
            told.wait_for(lambda rank=rank: told.find("step", rank) is not None)  # type: ignore[misc]
        told.tell(way, world - 1, 20)
        assert told.codes() == [PREEMPTED] * world, told.errors()
        stops = [told.find("over", rank) for rank in range(world)]
        assert stops == [stops[0]] * world, "all ranks ended behind the same step"
        assert told.committed() == [stops[0]]
        said = told.ending()
        assert f"saves at step {stops[0]} and stops" in said
        assert world == 1 or f"seen on rank {world - 1}@" in said
        assert told.find("returned") is None, "nothing behind train() has run"


def check_too_short(forks: ForkServer, folder: Path, way: str, world: int) -> None:
    """Tell the last rank, with no time for an upload: none is started, and what was committed stays the newest."""
    with Told(forks, folder, world, settings=settings(way, **SLOW), saves=[2]) as told:
        told.wait_for_event("commit")
        told.tell(way, world - 1, 4)
        assert told.codes() == [PREEMPTED] * world, told.errors()
        assert told.committed() == [2]
        assert told.folders() == ["checkpoint-2"], "nothing else was begun"
        stops = [told.find("over", rank) for rank in range(world)]
        assert stops == [stops[0]] * world
        assert f"stops at step {stops[0]} without another save" in told.ending()
        assert "are left" in told.ending()


@pytest.mark.parametrize("way", ["SIGTERM", "azure"])
def test_long_enough(forks: ForkServer, tmp_path: Path, way: str) -> None:
    """One rank that is told in time saves, commits and ends with exit code 75; nothing behind train() runs."""
    check_long_enough(forks, tmp_path, way, 1)


@pytest.mark.parametrize("way", ["SIGTERM"])
def test_too_short(forks: ForkServer, tmp_path: Path, way: str) -> None:
    """One rank that is told too late for an upload starts none, and ends with exit code 75."""
    check_too_short(forks, tmp_path, way, 1)


@pytest.mark.skipif(not two_ranks_work(), reason="the oldest versions can't train several CPU ranks")
def test_two_ranks(forks: ForkServer, tmp_path: Path) -> None:
    """A signal at rank 1 alone: both ranks save at the same step, and both end with exit code 75."""
    check_long_enough(forks, tmp_path, "SIGTERM", 2)


def test_a_signal_to_all_processes_spares_the_one_that_moves_files(forks: ForkServer, tmp_path: Path) -> None:
    """Slurm and terminals signal a whole group: the last checkpoint's large files are still sent by that process."""
    with Told(forks, tmp_path, large=True, saves=[1], settings=settings("SIGTERM", grace=40.0)) as told:
        told.wait_for_event("commit")
        os.killpg(told.runs[0].pid, signal.SIGTERM)
        assert told.codes() == [PREEMPTED], told.errors()
        assert told.committed() == [1, told.find("over")]
        assert not [text for text in told.events("notice") if "large files" in text]


def _table(*rows: tuple[str, int]) -> pytest.MarkDecorator:
    skip = pytest.mark.skipif(
        not two_ranks_work(), reason="the oldest versions can't train several CPU ranks"
    )
    return pytest.mark.parametrize(
        ("way", "world"), [pytest.param(*row, marks=[skip] if row[1] > 1 else []) for row in rows]
    )


@pytest.mark.slow
@_table(("SIGUSR1", 1), ("aws", 2), ("gcp", 1), ("azure", 2))
def test_table_long_enough(forks: ForkServer, tmp_path: Path, way: str, world: int) -> None:
    """Each way of telling, at any rank, in time: all ranks save at one step, it is committed, all end with 75."""
    check_long_enough(forks, tmp_path, way, world)


@pytest.mark.slow
@_table(("SIGUSR1", 2), ("aws", 1), ("gcp", 2), ("azure", 1))
def test_table_too_short(forks: ForkServer, tmp_path: Path, way: str, world: int) -> None:
    """Each way of telling, at any rank, too late: no upload is started, all end with 75."""
    check_too_short(forks, tmp_path, way, world)


def test_told_again_and_again(forks: ForkServer, tmp_path: Path) -> None:
    """A scheduler that repeats SIGTERM changes nothing: one save, exit code 75."""
    with Told(forks, tmp_path, signals={"3": ["SIGTERM", "SIGTERM"], "4": ["SIGTERM"]}) as told:
        assert told.codes() == [PREEMPTED]
        assert told.committed() == [3]


def test_what_is_under_way_is_drained(forks: ForkServer, tmp_path: Path) -> None:
    """Time for the upload under way and for no other: that one is committed, no other is begun."""
    given = settings("SIGTERM", bandwidth="55kB", grace=5.0)
    spec = {"saves": [2, 60], "signals": {"61": ["SIGTERM"]}, "pace": 0.1}
    with Told(forks, tmp_path, settings=given, **spec) as told:
        assert told.codes() == [PREEMPTED]
        assert told.committed() == [2, 60], told.errors()
        assert told.folders() == ["checkpoint-2", "checkpoint-60"]
        assert "stops at step 61 without another save" in told.ending()


def test_a_recommendation_costs_one_save(forks: ForkServer, tmp_path: Path) -> None:
    """AWS's rebalance recommendation: one save at once, training goes on to its end, exit code 0."""
    with Told(forks, tmp_path, settings=settings("aws"), steps=60) as told:
        told.hosts[0].rebalance = {"noticeTime": "2026-01-01T00:00:00Z"}
        assert told.codes() == [0]
        assert len(told.committed()) == 1
        assert told.find("returned") == 60


@pytest.mark.parametrize("world", [1, 2])
def test_a_loop_of_ones_own(forks: ForkServer, tmp_path: Path, world: int) -> None:
    """A loop with a Checkpointer, one rank of which is told: all save at the same step, and end with code 75."""
    given = settings("SIGTERM", grace=20.0)
    with Told(forks, tmp_path, world, program="loop", settings=given) as told:
        for rank in range(world):
            told.wait_for(lambda rank=rank: told.find("step", rank) is not None)  # type: ignore[misc]
        told.tell("SIGTERM", world - 1, 20)
        assert told.codes() == [PREEMPTED] * world, told.errors()
        stops = [told.find("over", rank) for rank in range(world)]
        assert stops == [stops[0]] * world
        assert told.committed() == [stops[0]]
        assert told.find("returned") is None


def test_interrupted(forks: ForkServer, tmp_path: Path) -> None:
    """Ctrl-C saves, commits, and raises KeyboardInterrupt in the script as it always does, behind the save."""
    with Told(forks, tmp_path, signals={"3": ["SIGINT"]}) as told:
        assert told.codes() == [INTERRUPTED]
        assert told.committed() == [told.find("interrupted")] == [3]


def test_interrupted_twice(forks: ForkServer, tmp_path: Path) -> None:
    """A second Ctrl-C ends at once, though an upload of minutes is under way."""
    with Told(forks, tmp_path, settings={"bandwidth": "1kB"}, saves=[2], signals={"3": ["SIGINT"]}) as told:
        told.wait_for(lambda: len(told.events("preempt")) == 2)
        told.tell("SIGINT", 0, 0)
        assert told.codes() == [INTERRUPTED]
        assert told.committed() == []


def test_own_handler_is_called_and_comes_back(forks: ForkServer, tmp_path: Path) -> None:
    """A handler that the script has set is called too; behind train() it is the only one."""
    with Told(forks, tmp_path, handler=True, steps=8) as told:
        assert told.codes() == [0]
        assert told.find("own") is None
    with Told(forks, tmp_path / "2", handler=True, signals={"3": ["SIGTERM"]}) as told:
        assert told.codes() == [PREEMPTED]
        assert told.find("own") == 15


def test_handlers_are_gone_behind_training(forks: ForkServer, tmp_path: Path) -> None:
    """Behind train() signals do again what they did before."""
    with Told(forks, tmp_path, steps=4) as told:
        assert told.codes() == [0]
        assert told.find("sigterm_is_handled") is False


def test_handlers_are_gone_where_training_broke_off(forks: ForkServer, tmp_path: Path) -> None:
    """The callback alone isn't told of an exception in train(): SIGTERM ends the script all the same."""
    with Told(forks, tmp_path, alone=True) as told:
        assert told.codes() == [-15]
        assert told.find("broke_off") == 3


def test_training_on_another_thread(forks: ForkServer, tmp_path: Path) -> None:
    """Off the main thread no signal can be caught: that is said, and training goes on as ever."""
    with Told(forks, tmp_path, thread=True, steps=4) as told:
        assert told.codes() == [0]
        assert told.find("returned") == 4
        assert "won't be seen" in told.events("notice")[0]


def test_the_next_start_goes_on(forks: ForkServer, tmp_path: Path) -> None:
    """Told to stop and started again: the weights are those of a run that nobody disturbed, bit by bit."""
    with Told(forks, tmp_path / "whole", steps=12) as told:
        assert told.codes() == [0]
        whole = told.find("weights")
    with Told(forks, tmp_path / "told", steps=12, signals={"5": ["SIGTERM"]}) as told:
        assert told.codes() == [PREEMPTED]
        assert told.find("over") == 5
    with Told(forks, tmp_path / "told", steps=12) as told:
        assert told.codes() == [0]
        assert told.find("weights") == whole
