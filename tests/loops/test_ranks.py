"""Loops of several ranks, of torch's own DDP and of accelerate: killed at random instants, resumed on empty disks."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin

from tests.forks import ForkServer
from tests.ranks.checks import kill_and_resume
from tests.ranks.launch import Attempt, Ranks, end_all
from vaultlayer_hf import open_vault

LONGEST = 1.5
"""Seconds within which a kill comes: about as long as a whole run takes."""


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Any:
    """No rank outlives its test."""
    yield
    end_all()


def _kill(
    forks: ForkServer,
    folder: Path,
    chance: random.Random,
    kills: int,
    outputs: list[Path],
    vault: str | None = None,
    env: dict[int | None, dict[str, str]] | None = None,
    **spec: Any,
) -> Attempt:
    steps = {"steps": 10} if "naming" in spec else {"steps": 10, "rows": 24}
    vault = vault or str(folder / "vault")
    reference = Ranks(
        forks, folder / "reference", [folder / "stock"] * len(outputs), **_program(spec), **spec, **steps
    )
    whole = reference.start()
    whole.succeed()
    ranks = Ranks(forks, folder, outputs, env=env, **_program(spec), vault=vault, **spec, **steps)
    kill_and_resume(ranks, whole, chance, kills=kills, longest=LONGEST, saves_end="naming" not in spec)
    return ranks.attempts[-1]


def _program(spec: dict[str, Any]) -> dict[str, str]:
    return {"program": f"tests.loops.{'killed_script' if 'naming' in spec else 'killed_loop'}:train"}


@pytest.mark.parametrize(
    ("form", "shared"),
    [
        ("steps", True),
        ("accelerate", False),
        pytest.param("guide", False, marks=pytest.mark.slow),
        ("fsdp-sharded", True),
        pytest.param("fsdp-full", False, marks=pytest.mark.slow),
        pytest.param("accelerate", True, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_on_two_ranks(
    forks: ForkServer, tmp_path: Path, chance: random.Random, form: str, shared: bool
) -> None:
    """A rank or all killed at random, disks emptied: every rank goes on at one step, with its batches and weights."""
    if form.startswith("fsdp") and "fsdp_version" not in FullyShardedDataParallelPlugin.__dataclass_fields__:
        pytest.skip("this accelerate has no FSDP 2, and FSDP 1 doesn't run on a CPU")
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(2)]
    last = _kill(forks, tmp_path, chance, 2, outputs, form=form)
    spare = {name for rank in range(2) for note in last.notes(rank) for name in note.get("spare", ())}
    assert not spare, f"a checkpoint without {spare} would be committed"


@pytest.mark.parametrize("data", ["stream", pytest.param("telling", marks=pytest.mark.slow)])
def test_a_stream_on_two_ranks(forks: ForkServer, tmp_path: Path, chance: random.Random, data: str) -> None:
    """Data without indices, which rank 0 fetches and deals out, over more than one pass: the same at each rank."""
    outputs = [tmp_path / f"output-{rank}" for rank in range(2)]
    _kill(forks, tmp_path, chance, 2, outputs, form="accelerate", data=data, augment=True)


@pytest.mark.parametrize("naming", ["automatic", pytest.param("one", marks=pytest.mark.slow)])
def test_attached_on_two_ranks(forks: ForkServer, tmp_path: Path, chance: random.Random, naming: str) -> None:
    """The same for a script's own save_state and load_state, led through a vault by attach()."""
    _kill(forks, tmp_path, chance, 2, [tmp_path / "output"] * 2, naming=naming)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["guide", "steps", "accelerate", "attached"])
def test_killed_on_s3(
    forks: ForkServer,
    tmp_path: Path,
    chance: random.Random,
    s3_uri: str,
    s3_env: dict[str, str],
    spec: str,
) -> None:
    """The same on a real S3 server."""
    outputs = [tmp_path / f"output-{rank}" for rank in range(2)]
    more = {"naming": "automatic"} if spec == "attached" else {"form": spec}
    _kill(forks, tmp_path, chance, 2, outputs, vault=s3_uri, env={None: s3_env}, **more)


def test_what_one_rank_cannot_load_is_raised_on_all(forks: ForkServer, tmp_path: Path) -> None:
    """An object's own error, of whatever kind, on one rank: all end by it at once, and it names that rank."""
    patient = {"part_timeout": 100.0}  # nobody waits for as long
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output"] * 2,
        program="tests.loops.troubled_rank:train",
        vault=str(tmp_path / "vault"),
        settings=patient,
    )
    ranks.start().succeed()
    failed = ranks.start(per_rank={1: {"unloadable": True}})
    assert failed.wait(60, agents=False) == [3, 3], failed.errors()
    for rank in range(2):
        (note,) = [note for note in failed.notes(rank) if "error" in note]
        assert note["error"] == "ResumeError", note
        assert "rank 1" in note["message"]
        assert "object.pt of checkpoint-3 can't be loaded: AttributeError: other attribute" in note["message"]


def test_a_full_disk_of_one_rank(forks: ForkServer, tmp_path: Path, small_disk: Path) -> None:
    """Where one node's disk is full all ranks give that checkpoint up together, and the next one is whole."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    ranks = Ranks(
        forks,
        tmp_path,
        [tmp_path / "output", small_disk / "output"],
        program="tests.loops.troubled_rank:train",
        vault=str(tmp_path / "vault"),
        per_rank={1: {"filler": str(filler)}},
    )
    attempt = ranks.start()
    attempt.succeed()
    (said,) = attempt.events(0, "abandon")
    assert (
        "checkpoint-1 isn't committed, training goes on: rank 1: it can't be written: the disk is full"
        in said
    )
    with open_vault(str(tmp_path / "vault")) as vault:
        assert [commit.step for commit in vault.checkpoints()][-2:] == [2, 3]
        assert all(vault.verify(commit).ok for commit in vault.checkpoints())


@pytest.mark.parametrize(
    ("written", "now", "spec"),
    [
        (1, 2, {"form": "accelerate"}),
        (2, 1, {"form": "accelerate"}),
        pytest.param(1, 2, {"naming": "automatic"}, marks=pytest.mark.slow),
        pytest.param(2, 1, {"naming": "automatic"}, marks=pytest.mark.slow),
    ],
)
def test_on_from_one_rank_to_several_and_back(
    forks: ForkServer, tmp_path: Path, written: int, now: int, spec: dict[str, Any]
) -> None:
    """Where one rank has written the model of an Accelerator two go on from it, and one from that of two."""
    vault = str(tmp_path / "vault")
    for ranks, kill in ((written, 1), (now, None)):
        outputs = [tmp_path / f"output-{ranks}"] * ranks
        more = {**_program(spec), **spec, "vault": vault}
        attempt = Ranks(forks, tmp_path / f"ranks-{ranks}", outputs, **more).start(
            **({"die_at": ["stepped", 5]} if kill else {})
        )
        assert attempt.wait(60) is not None
    starts = [note["start"] for note in attempt.notes(0) if "start" in note]
    attempt.succeed()
    assert len(starts) == 1
    assert starts[0] >= 2
