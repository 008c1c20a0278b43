"""A process group on a store that is older than it is: torchrun's own restarts, and a group that is made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.forks import ForkServer
from tests.ranks.checks import live
from tests.ranks.launch import Group
from tests.ranks.launchers import Launched

pytestmark = pytest.mark.skipif(
    not hasattr(TCPStore, "list_keys"), reason="this torch can't list a store's keys"
)


def test_each_group_hears_its_own_ranks_alone(forks: ForkServer, tmp_path: Path) -> None:
    """Two attempts of two groups each on one store, in which every rank says that it leaves: none hears another's."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for attempt in range(2):
        runs = []
        for rank in range(2):
            folder = tmp_path / f"{attempt}-{rank}"
            given = {"port": server.port, "rank": rank, "attempt": attempt, "result": str(folder / "heard")}
            runs.append(forks.start("tests.ranks.elastic:talk", {**given, "slow": 0.5 * attempt}, folder))
        outcomes = [run.wait() for run in runs]
        assert [outcome.code for outcome in outcomes] == [0, 0], [outcome.errors for outcome in outcomes]
        for rank in range(2):
            heard = json.loads((tmp_path / f"{attempt}-{rank}" / "heard").read_text())
            assert heard == [["", f"attempt {attempt}, group {group}"] for group in range(2)]


@pytest.mark.slow
def test_torchrun_restarts_by_itself(tmp_path: Path, reference: Callable[[str, int], Group]) -> None:
    """A rank killed under --max-restarts=1: the agent starts both again, and they end as the unbroken run does."""
    launched = Launched(
        tmp_path,
        [tmp_path / "output"] * 2,
        [2],
        restarts=1,
        program="tests.ranks.elastic",
        vault=str(tmp_path / "vault"),
        pace=0.2,
    )
    launch = launched.start()
    launch.await_note(0, event="commit")
    launch.worker(1).kill()
    launch.succeed()
    starts = [note["start"] for note in launch.notes(1) if "start" in note]
    assert len(starts) == 2
    assert starts[1] > 0, "the second attempt goes on"
    ends = [[(one["step"], one["tensors"]) for one in of.results()] for of in (reference("ddp", 2), launch)]
    assert ends[0] == ends[1]
    assert live(tmp_path / "vault")[-1].step == 10
