"""What each framework's checkpoint must hold, on folders that the frameworks' own code has written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.launch import Group, Ranks
from tests.ranks.layouts import check_layout
from tests.servers import free_ports
from vaultlayer_hf.state.layouts import missing_shards, refusal
from vaultlayer_hf.trainer.layout import missing_files, wanted_files
from vaultlayer_hf.vault.snapshot import list_files


@pytest.mark.parametrize("kind", ["ddp", "fsdp-full", "fsdp-sharded"])
def test_layout(reference: Callable[[str, int], Group], kind: str) -> None:
    """Each file that a resume needs is missed where it isn't there; each node gets what its ranks load."""
    check_layout(reference(kind, 2), kind)


def test_layouts_of_fsdp_1(forks: ForkServer, tmp_path: Path) -> None:
    """FSDP 1's sharded and per-rank forms: what is missing is said, and per-rank files need their world size."""
    port = free_ports(1)[0]
    runs = []
    for rank in range(2):
        env = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        spec = {"folder": str(tmp_path), "journal": str(tmp_path / f"journal-{rank}")}
        runs.append(
            forks.start("tests.ranks.train_ranks:save_as_fsdp1", spec, tmp_path / f"run-{rank}", env=env)
        )
    for run in runs:
        outcome = run.wait(60)
        assert outcome.code == 0, outcome.errors
    for form in ("sharded", "local", "no-dcp"):
        folder = tmp_path / form
        paths = set(list_files(folder))
        assert missing_files(paths, 2) + missing_shards(folder, paths) == []
        for path in paths:
            left = paths - {path}
            assert missing_files(left, 2) + missing_shards(folder, left), f"{form}: {path} isn't missed"
        alone = {path for path in paths if path not in wanted_files(paths, (0,), 2)}
        if form == "sharded":
            assert alone == {"rng_state_1.pth"}
            assert refusal(paths, 2, 4) == ""
        else:
            assert alone == {path for path in paths if "_rank1." in path or path == "rng_state_1.pth"}
            assert "start on 2 ranks" in refusal(paths, 2, 4)
        assert refusal(paths, 2, 2) == ""


def test_fsdp_1_cannot_run_on_a_cpu(forks: ForkServer, tmp_path: Path) -> None:
    """Why FSDP 1 is tested by its files alone: the stock Trainer's own error, without this package in the process."""
    group = Ranks(forks, tmp_path, [tmp_path / "output"] * 2, kind="fsdp1").start()
    assert all(group.wait())
    assert re.search(
        "FSDP needs a non-CPU accelerator device|Inconsistent compute device and `device_id`", group.errors()
    )
