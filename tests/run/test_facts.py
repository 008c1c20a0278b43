"""What `vl run` takes from the notes of an attempt that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaultlayer_hf.run.decide.cause import Cause, blame, classify
from vaultlayer_hf.run.facts import gather
from vaultlayer_hf.run.journal import append

MEMORY = {"kind": "error", "type": "torch.OutOfMemoryError", "message": "CUDA out of memory", "memory": True}


def begun(step: int = 0, pid: int = 0) -> dict[str, Any]:
    """The note of a training's begin."""
    return {"kind": "train", "step": step, "micro_batch": 8, "accumulation": 1, "pid": pid}


def noted(folder: Path, *lines: dict[str, Any], rank: int = 0) -> None:
    """Write a rank's notes, a second apart."""
    for time, line in enumerate(lines):
        append(folder / f"rank-{rank}.jsonl", {"time": float(time), **line})


def test_an_error_that_the_script_has_got_over_is_not_blamed(tmp_path: Path) -> None:
    """What ended a train() that the script called again, smaller, isn't what a kill hours later is taken for."""
    noted(tmp_path, begun(), MEMORY, begun(), {"kind": "log", "step": 900})
    death = gather(tmp_path, -9, "", vault=None)
    assert death.errors == ()
    assert classify(death, trained_before=True) is Cause.KILLED


def test_each_rank_gets_over_its_own_errors(tmp_path: Path) -> None:
    """A rank's new training says nothing of an error that another rank has ended with since its own."""
    crash = {"kind": "error", "type": "ValueError", "message": "a bad row"}
    noted(tmp_path, begun(), MEMORY, begun())
    noted(tmp_path, begun(), MEMORY, begun(), crash, rank=1)
    found = blame(gather(tmp_path, 1, "", vault=None).errors)
    assert found is not None
    assert (found.rank, found.type) == (1, "ValueError")


def test_a_loss_that_the_script_has_got_over_walks_nothing_back(tmp_path: Path) -> None:
    """A loss that was nan in a training that the script began anew, at a lower rate, say, ends no later one."""
    noted(tmp_path, begun(), {"kind": "nonfinite", "step": 7}, begun())
    assert gather(tmp_path, -9, "", vault=None).nonfinite is None
