"""Loops of several ranks, of torch's own DDP and of accelerate: killed at random instants, resumed on empty disks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import kill_and_resume
from tests.ranks.launch import Ranks, end_all

LONGEST = 1.5
"""Seconds within which a kill comes: about as long as a whole run takes."""


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Any:
    """No rank outlives its test."""
    yield
    end_all()


def _kill(
    forks: ForkServer, folder: Path, chance: random.Random, kills: int, outputs: list[Path], **spec: Any
) -> None:
    steps = {"steps": 10, "rows": 24}
    reference = Ranks(
        forks, folder / "reference", [folder / "stock"] * len(outputs), **_program(spec), **spec, **steps
    )
    whole = reference.start()
    whole.succeed()
    ranks = Ranks(forks, folder, outputs, **_program(spec), vault=str(folder / "vault"), **spec, **steps)
    kill_and_resume(ranks, whole, chance, kills=kills, longest=LONGEST)


def _program(spec: dict[str, Any]) -> dict[str, str]:
    return {"program": f"tests.loops.{'attached' if 'naming' in spec else 'program'}:train"}


@pytest.mark.parametrize(
    ("form", "shared"),
    [
        ("steps", True),
        ("accelerate", False),
        pytest.param("guide", False, marks=pytest.mark.slow),
        pytest.param("accelerate", True, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_on_two_ranks(
    forks: ForkServer, tmp_path: Path, chance: random.Random, form: str, shared: bool
) -> None:
    """A rank or all killed at random, disks emptied: every rank goes on at one step, with its batches and weights."""
    outputs = [tmp_path / ("output" if shared else f"output-{rank}") for rank in range(2)]
    _kill(forks, tmp_path, chance, 2, outputs, form=form)
