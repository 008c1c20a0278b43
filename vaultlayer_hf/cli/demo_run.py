"""One training process of `vl demo`, seen from its parent: started, followed, killed, read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_QUIET = {
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""The demo trains on the CPU, needs no network, and leaves the terminal to its story."""


@dataclass
class Run:
    """What is known of one training process.

    Attributes:
        name: for the table.
        start: the step it started behind; 0 is fresh; None until it has.
        step: the last step that was trained.
        losses: (step, loss) of the whole history; empty unless it ended by itself.
        returncode: as in subprocess; -9 is SIGKILL.
        weights: SHA-256 of the final ``model.safetensors``; empty unless it ended by itself.
        events: what the library logged, a line each.
    """

    name: str
    start: int | None = None
    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    returncode: int | None = None
    weights: str = ""
    events: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The last logged loss; NaN where there is none."""
        return self.losses[-1][1] if self.losses else math.nan

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.returncode == -signal.SIGKILL


class TrainingFailedError(Exception):
    """The training process ended by itself, and not well."""


def train(
    name: str,
    command: list[str],
    output: Path,
    log: Path,
    *,
    environment: dict[str, str],
    on_step: Callable[[int], None],
    kill_when: Callable[[], bool] | None = None,
) -> Run:
    """Run a training command to its end, or until ``kill_when`` says so, and return what came of it.

    ``kill_when`` is asked every 10 ms; the process is then killed by SIGKILL. ``on_step`` gets the step as
    it passes. Raises TrainingFailedError, with the end of its log.
    """
    run = Run(name)
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_QUIET, **environment},
        )
        reader = threading.Thread(target=_read, args=(process, run), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                on_step(run.step)
                if kill_when is not None and kill_when():
                    process.kill()
                    break
                time.sleep(0.01)
            run.returncode = process.wait()
        finally:
            # Also where this process is interrupted: a training process must not outlive its story.
            process.kill()
            process.wait()
            reader.join(timeout=10)
    on_step(run.step)
    text = log.read_text(errors="replace")
    run.events = re.findall(r"\[vaultlayer\] (.+)", text)  # progress bars may stand before it on its line
    if run.returncode == 0:
        run.weights = hashlib.sha256((output / "final" / "model.safetensors").read_bytes()).hexdigest()
    elif not run.killed:
        tail = "\n".join(text.splitlines()[-15:])
        raise TrainingFailedError(f"the training process ended with {run.returncode}:\n{tail}")
    return run


def training_command(output: Path, vault: str | None) -> list[str]:
    """Return the command that trains in ``output``, with its checkpoints in ``vault`` if there is one."""
    command = [sys.executable, "-m", "vaultlayer_hf.trainer.demo_training", "--output", str(output)]
    return [*command, "--vault", vault] if vault else command


def _read(process: subprocess.Popen[bytes], run: Run) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library printed; SIGKILL can also tear the last line
        if not isinstance(said, dict):
            continue
        if "start" in said:
            run.start = said["start"]
        if "step" in said:
            run.step = said["step"]
        if "end" in said:
            run.step = said["end"]
            run.losses = [(step, loss) for step, loss in said["losses"]]
