"""Ranks that wait in vain for one that has died."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.servers import die_with_parent
from vaultlayer_hf.run.engines.ranks import WaitingRanks, lost_ranks
from vaultlayer_hf.run.journal import append, read_notes


@pytest.fixture
def ranks(tmp_path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that have noted that they train."""
    found = [_started(tmp_path, rank) for rank in range(2)]
    yield found
    for one in found:
        one.kill()
        one.wait()


def _started(folder, rank: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], preexec_fn=die_with_parent
    )
    append(folder / f"rank-{rank}.jsonl", {"time": time.time(), "kind": "train", "pid": process.pid})
    return process


def _looks(waiting: WaitingRanks, folder, seconds: float) -> list[int]:
    """Look as `vl run` does, until something is found."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = waiting.look(folder, 2)
        if found:
            return found
        time.sleep(0.2)
    return []


def test_who_waits_for_a_dead_rank_is_found_after_a_while(ranks, tmp_path) -> None:
    """While all are alive nobody is; once one was killed, the other is, and not at once: it may end by itself."""
    waiting = WaitingRanks()
    assert _looks(waiting, tmp_path, 0.5) == []
    ranks[0].kill()
    ranks[0].wait()
    assert waiting.look(tmp_path, 2) == []
    assert _looks(waiting, tmp_path, 20) == [ranks[1].pid]
    assert lost_ranks(read_notes(tmp_path)) == [0]


def test_ranks_that_were_started_again_are_left_alone(ranks, tmp_path) -> None:
    """torchrun has started all of them again: the first that trains doesn't wait for a dead one, but for a slow one."""
    waiting = WaitingRanks()
    assert waiting.look(tmp_path, 2) == []
    for one in ranks:
        one.kill()
        one.wait()
    assert waiting.look(tmp_path, 2) == []
    ranks.append(_started(tmp_path, 1))
    assert _looks(waiting, tmp_path, 2.5) == []


def test_a_rank_that_came_to_its_end_is_not_waited_for(ranks, tmp_path) -> None:
    """One that has noted the end of its training, or its error, is no dead one."""
    append(tmp_path / "rank-0.jsonl", {"time": time.time(), "kind": "trained"})
    ranks[0].kill()
    ranks[0].wait()
    assert _looks(WaitingRanks(), tmp_path, 2.5) == []
