"""Ranks that train by themselves between two meetings (LocalSGD), in a script that `vl init` has edited."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.forks import ForkServer
from tests.run.insert.kit import SCRIPTS
from tests.run.insert.run_script import STEPS, commits
from tests.run.insert.story import same
from tests.servers import free_ports
from vaultlayer_hf.run.insert.apply import apply
from vaultlayer_hf.run.insert.propose import Proposal, propose


def _run(forks: ForkServer, folder: Path, name: str, **more: object) -> list[int]:
    """Run a script on two ranks, each with a folder of its own; return their exit codes."""
    (port,) = free_ports(1)
    ranks = []
    for rank in range(2):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "VAULTLAYER_SAVE_EVERY": "1 steps"}
        script = folder / f"rank-{rank}" / "train.py"
        arguments = {"script": str(script), **more}
        ranks.append(
            forks.start("tests.run.insert.run_script:run", arguments, folder / f"{name}-{rank}", env=env)
        )
    ended = [rank.wait() for rank in ranks]
    assert all(one.code in (0, -9) for one in ended), [one.errors for one in ended]
    return [one.code for one in ended]


@pytest.mark.slow
def test_two_ranks_that_meet_now_and_then_go_on_where_they_met(forks: ForkServer, tmp_path: Path) -> None:
    """Killed between two meetings, resumed on empty disks: each rank ends as it would have, weights and buffers."""
    vault = tmp_path / "vault"
    for kind in ("plain", "edited"):
        for rank in range(2):
            folder = tmp_path / kind / f"rank-{rank}"
            folder.mkdir(parents=True)
            shutil.copy(SCRIPTS / "rounds_of_ranks.py", folder / "train.py")
            if kind == "edited":
                found = propose(folder / "train.py", str(vault))
                assert isinstance(found, Proposal)
                apply(found)
    plain, edited = tmp_path / "plain", tmp_path / "edited"
    assert _run(forks, plain, "whole") == [0, 0]
    total = json.loads((plain / "rank-0" / STEPS).read_text())
    # A checkpoint counts the meetings, one in each epoch of four steps: the kill waits for that of the second epoch.
    assert _run(forks, edited, "killed", die_at=total - 1, vault=str(vault), turns=3) == [-9, -9]
    assert commits(vault)[-1] == 2
    for rank in range(2):
        for path in (edited / f"rank-{rank}").iterdir():
            if path.name != "train.py":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert _run(forks, edited, "again") == [0, 0]
    assert json.loads((edited / "rank-0" / STEPS).read_text()) < total
    for rank in range(2):
        ends = [torch.load(kind / f"rank-{rank}" / "model.pt") for kind in (plain, edited)]
        assert same(*ends)
