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
    script: str, die_at: int | None = None, vault: str = "", by_hand: bool = False, least: int = 0
) -> None:
    """Run ``script`` in its own folder; die by SIGKILL at the ``die_at``-th step, once ``vault`` holds a commit.

    ``vault``: a folder; of several vaults in it the last one that was begun. ``by_hand``: the script has no optimizer,
    and each call of ``backward()`` is a step. ``least``: the step that the commit has to be behind: a kill with the
    first one proves nothing of what only later epochs change.
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
        if done == die_at:
            _wait_for_commit(Path(vault), least)
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


def _wait_for_commit(vault: Path, least: int, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not any(step > least for one in vaults_in(vault)[-1:] for step in commits(one)):
        if time.monotonic() > end:
            raise SystemExit("nothing was committed before the kill")
        time.sleep(0.01)
