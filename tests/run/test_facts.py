"""What `vl run` takes from the notes of an attempt that has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vaultlayer_hf.run.decide.cause import Cause, blame, classify
from vaultlayer_hf.run.decide.decision import Action, decide_restart, exit_code
from vaultlayer_hf.run.decide.restart_history import RestartHistory
from vaultlayer_hf.run.facts import gather
from vaultlayer_hf.run.journal import append

MEMORY = {"kind": "error", "type": "torch.OutOfMemoryError", "message": "CUDA out of memory", "memory": True}
GONE = 2**30
"""A pid that no process has."""
CRASH = {"kind": "error", "type": "ValueError", "message": "a bad row"}
FINISHED = {"kind": "trained", "step": 9, "over": True}


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
    noted(tmp_path, begun(), MEMORY, begun())
    noted(tmp_path, begun(), MEMORY, begun(), CRASH, rank=1)
    found = blame(gather(tmp_path, 1, "", vault=None).errors)
    assert found is not None
    assert (found.rank, found.type) == (1, "ValueError")


def test_a_loss_that_the_script_has_got_over_walks_nothing_back(tmp_path: Path) -> None:
    """A loss that was nan in a training that the script began anew, at a lower rate, say, ends no later one."""
    noted(tmp_path, begun(), {"kind": "nonfinite", "step": 7}, begun())
    assert gather(tmp_path, -9, "", vault=None).nonfinite is None


def ending(kind: str, pid: int = GONE, **more: object) -> dict[str, Any]:
    """The note of how a process has ended."""
    return {"kind": kind, "pid": pid, **more}


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([], Cause.KILLED),
        ([CRASH, ending("uncaught"), ending("exit")], Cause.CRASH),
        ([MEMORY, ending("uncaught"), ending("exit")], Cause.MEMORY),
        ([ending("exit", code=75)], Cause.PREEMPTED),
        ([ending("exit", code=0)], Cause.FINISHED),  # sys.exit(0)
        ([ending("exit")], Cause.FINISHED),  # a loop that was left by `break`
        ([CRASH, ending("exit")], Cause.FINISHED),  # it has caught its error
        ([{**FINISHED, "over": False}, ending("exit")], Cause.FINISHED),  # stopped early
        ([{**FINISHED, "over": False}], Cause.FINISHED),  # the same, by os._exit()
        ([FINISHED, CRASH, ending("uncaught")], Cause.FINISHED),  # all was trained
        ([CRASH, ending("uncaught", pid=7), ending("exit")], Cause.FINISHED),  # of another process
    ],
)
def test_a_shell_hides_no_death(lines: list[dict[str, Any]], cause: Cause, tmp_path: Path) -> None:
    """Where a shell says 0, the notes tell what was killed in its training from what has ended by itself."""
    noted(tmp_path, begun(pid=GONE), {"kind": "log", "step": 50}, *lines)
    death = gather(tmp_path, 0, "", vault=None, shell=True)
    assert classify(death, trained_before=True) is cause
    decision = decide_restart(death, RestartHistory(trained=True))
    assert (decision.action is Action.DONE) == (cause is Cause.FINISHED)
    assert ("pipefail" in decision.detail) == (cause is not Cause.FINISHED)
    assert (exit_code(decision, death) == 0) == (cause is Cause.FINISHED)
    assert classify(gather(tmp_path, 0, "", vault=None)) is Cause.FINISHED  # whose exit code is its own


def test_behind_a_shell_what_lives_is_not_dead(tmp_path: Path) -> None:
    """A script may leave its training to another process, and what was started itself has said how it ended."""
    noted(tmp_path, begun(pid=os.getpid()))
    assert classify(gather(tmp_path, 0, "", vault=None, shell=True)) is Cause.FINISHED
    noted(tmp_path, begun(pid=GONE))
    assert classify(gather(tmp_path, 0, "", vault=None, shell=True, pid=GONE)) is Cause.FINISHED
