"""Run a script as ``python script.py`` would, in a process that may be killed at a step."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

STEPS = "steps.json"
"""What the run leaves: how many times this process has stepped an optimizer."""


def run(
    script: str,
    die_at: int | None = None,
    vault: str = "",
    by_hand: bool = False,
    turns: float = 1,
    before: int = 0,
) -> None:
    """Run ``script`` in its own folder; die by SIGKILL at a step, once ``vault`` holds what came before its middle.

    A kill with the first commit proves nothing of what only later epochs change. So the kill waits for one that is
    behind half of the steps that the training under way has done by then. A script that trains several times has a
    vault for each training: that of the last one that was begun counts, without the steps of those before it.

    Args:
        script: its path.
        die_at: the step, counted from the training's begin over all its starts; None to run to the end.
        vault: a folder with one vault or several.
        by_hand: the script has no optimizer, and each call of ``backward()`` is a step.
        turns: how many such steps make one step of a checkpoint.
        before: how many steps the vaults held as this process began.
    """
    folder, name = os.path.split(script)
    os.chdir(folder)
    sys.argv = [name]
    sys.path.insert(0, folder)
    torch.set_num_threads(1)
    done = 0

    def stepped(*_: Any) -> None:
        nonlocal done
        done += 1
        if before + done == die_at:
            _wait_for_commit(Path(vault), int((before + done - 1) / turns))
            os.kill(os.getpid(), signal.SIGKILL)

    if by_hand:
        tensor: Any = torch.Tensor
        backward = tensor.backward

        def count_and_go_back(*arguments: Any, **more: Any) -> None:
            stepped()
            backward(*arguments, **more)

        tensor.backward = count_and_go_back
    else:
        register_optimizer_step_post_hook(stepped)
    runpy.run_path(name, run_name="__main__")
    Path(STEPS).write_text(json.dumps(done))


def commits(vault: Path) -> list[int]:
    """The steps that a folder vault holds, oldest first."""
    from vaultlayer_hf import open_vault

    if not (vault / "log").is_dir():
        return []
    with open_vault(str(vault)) as opened:
        return [commit.step for commit in opened.checkpoints()]


def vaults_in(folder: Path) -> list[Path]:
    """Return the vaults in a folder by their names, which end with their number; the folder itself where it is one."""
    # os.walk passes over folders that vanish meanwhile, such as the probe's.
    return sorted(Path(root) for root, folders, _ in os.walk(folder) if "log" in folders)


def newest_commits(folder: Path) -> list[int]:
    """The newest step of each vault in a folder, 0 where there is none yet."""
    return [max(commits(one), default=0) for one in vaults_in(folder)]


def _wait_for_commit(folder: Path, done: int, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while True:
        *over, newest = newest_commits(folder) or [0]
        least = (done - sum(over)) // 2
        if newest > least:
            return
        if time.monotonic() > end:
            raise SystemExit(
                f"nothing behind step {least} was committed before the kill, the newest is {newest}"
            )
        time.sleep(0.01)
