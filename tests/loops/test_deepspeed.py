"""Loops whose Accelerator trains with DeepSpeed: killed at random instants, resumed on an empty disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import kill_and_resume
from tests.ranks.launch import Ranks, end_all

pytest.importorskip("deepspeed", reason="pip install 'vaultlayer-hf[deepspeed]'")
PROGRAM = "tests.loops.killed_loop:train"


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    """A fork server that has imported the program and DeepSpeed; its runs die with it."""
    with ForkServer("tests.loops.killed_loop", "accelerate", "deepspeed") as server:
        yield server
    end_all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zero2", "zero3"])
def test_killed_and_resumed(forks: ForkServer, tmp_path: Path, chance: random.Random, form: str) -> None:
    """A rank or both killed, the disk emptied: both go on at one step, with their batches, weights and moments."""
    common: dict[str, Any] = {"program": PROGRAM, "form": form, "steps": 10, "rows": 24}
    reference = Ranks(forks, tmp_path / "reference", [tmp_path / "stock"] * 2, **common).start()
    reference.succeed()
    vault = str(tmp_path / "vault")
    ranks = Ranks(forks, tmp_path, [tmp_path / "output"] * 2, vault=vault, **common)
    kill_and_resume(ranks, reference, chance, kills=2, longest=3.0)
    spare = next(note["spare"] for note in ranks.attempts[-1].notes(0) if "spare" in note)
    assert spare == ["latest", "zero_to_fp32.py", "zero_to_torch.py"]
