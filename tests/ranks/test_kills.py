"""Ranks that are killed at random instants and resumed end with the weights and samples of an unbroken run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import kill_and_resume
from tests.ranks.launch import Group, Ranks

LONGEST = {"ddp": 2.5, "fsdp-full": 4.0, "fsdp-sharded": 4.0}
"""Seconds within which a kill comes: about as long as a whole run takes."""


@pytest.mark.parametrize(
    ("kind", "world", "shared", "kills"),
    [
        ("ddp", 2, True, 3),
        ("ddp", 2, False, 3),
        pytest.param("fsdp-full", 2, True, 1, marks=pytest.mark.slow),
        ("fsdp-sharded", 2, False, 1),
        pytest.param("ddp", 4, True, 6, marks=pytest.mark.slow),
        pytest.param("ddp", 4, False, 6, marks=pytest.mark.slow),
        pytest.param("fsdp-full", 2, False, 5, marks=pytest.mark.slow),
        pytest.param("fsdp-sharded", 2, True, 5, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_on_empty_disks(
    forks: ForkServer,
    tmp_path: Path,
    reference: Callable[[str, int], Group],
    chance: random.Random,
    kind: str,
    world: int,
    shared: bool,
    kills: int,
) -> None:
    """A rank or the whole tree killed at any instant, disks emptied: the run goes on as if nothing had happened."""
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(world)]
    ranks = Ranks(forks, tmp_path, outputs, kind=kind, vault=str(tmp_path / "vault"))
    kill_and_resume(ranks, reference(kind, world), chance, kills=kills, longest=LONGEST[kind])


@pytest.mark.parametrize("shared", [True, False])
def test_killed_and_resumed_on_the_same_disks(
    forks: ForkServer,
    tmp_path: Path,
    reference: Callable[[str, int], Group],
    chance: random.Random,
    shared: bool,
) -> None:
    """The same where the disks are still there, with what torn saves and sealed snapshots lie on them."""
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(2)]
    ranks = Ranks(forks, tmp_path, outputs, vault=str(tmp_path / "vault"), save_total_limit=1)
    kill_and_resume(ranks, reference("ddp", 2), chance, kills=3, longest=LONGEST["ddp"], empty=False)
