"""A training that is killed again and again, restarted in different ways: how much of the time went into progress."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.goodput.spent import Spent, Step, spent_beside
from tests.run.programs import environment
from tests.servers import die_with_parent

_SCATTER = 0.1
"""Share of the time between two kills by which each comes earlier or later, in all ways alike. At even intervals each
would meet the same place between two saves, as starts begin at a save and steps take the same time."""
PACE = 0.1
"""Seconds that a step takes, without what the Trainer does between two."""
SAVE_STEPS = 20

SCRIPT = textwrap.dedent(
    f"""
    import os, sys, time, torch
    torch.set_num_threads(1)
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint
    from tests.kit.models import tiny_llama

    class Pace(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.begin = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            time.sleep(max(0.0, {PACE} - (time.monotonic() - self.begin)))
            with open(os.environ["STEPS"], "a") as file:
                file.write(f"{{time.time()}} {{state.global_step}} {{os.getpid()}}\\n")

    set_seed(0)
    model = tiny_llama()
    rows = [{{"input_ids": row, "labels": row}} for row in torch.randint(0, 64, (40, 8))]
    args = TrainingArguments(
        "out", max_steps=100_000, save_steps={SAVE_STEPS}, save_total_limit=3, per_device_train_batch_size=4,
        logging_steps=50, use_cpu=True, report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
    )
    last = get_last_checkpoint("out") if "RESUME" in os.environ and os.path.isdir("out") else None
    Trainer(model=model, args=args, train_dataset=rows, callbacks=[Pace()]).train(resume_from_checkpoint=last)
    """
)


@dataclass(frozen=True)
class Way:
    """How the script is kept running.

    Attributes:
        environment: of the script.
        vl: by `vl run`; else by a shell's loop.
        spare: `vl run` keeps a spare interpreter, as it does unless told otherwise.
        empties: a kill takes all processes and the disk with it: the same command is started again in an empty folder.
        killed: whether it is killed at all.
    """

    environment: dict[str, str] = field(default_factory=dict)
    vl: bool = False
    spare: bool = True
    empties: bool = False
    killed: bool = True


UNDISTURBED = "stock Trainer, never killed"
WAYS = {
    UNDISTURBED: Way(killed=False),
    "stock Trainer with get_last_checkpoint, started again": Way({"RESUME": "1"}),
    "`vl run`, the same script": Way(vl=True),
    "`vl run`, VAULTLAYER_SAVE_EVERY=auto": Way({"VAULTLAYER_SAVE_EVERY": "auto"}, vl=True),
    "`vl run`, VAULTLAYER_SAVE_EVERY=auto, VAULTLAYER_ASYNC_SAVE=auto": Way(
        {"VAULTLAYER_SAVE_EVERY": "auto", "VAULTLAYER_ASYNC_SAVE": "auto"}, vl=True
    ),
    "`vl run --no-spare`, the same script": Way(vl=True, spare=False),
    "stock Trainer with get_last_checkpoint, disk emptied at each kill": Way({"RESUME": "1"}, empties=True),
    "`vl run --vault` elsewhere, disk emptied at each kill": Way(vl=True, empties=True),
    "stock Trainer, started again": Way(),
}


@dataclass(frozen=True)
class Result:
    """What came of the time.

    Attributes:
        begun, seconds: when it began, and how long it took, by the wall clock.
        steps: all steps that were trained, in order.
        killed_at: when the training was killed.
        failed: starts that ended by an exception: a kill in a save leaves half a checkpoint.
    """

    begun: float
    seconds: float
    steps: list[Step]
    killed_at: list[float]
    failed: int

    @property
    def kills(self) -> int:
        """How often the training was killed."""
        return len(self.killed_at)

    @property
    def reached(self) -> int:
        """The step that the training stood at in the end: each step counts once."""
        return self.steps[-1].number if self.steps else 0

    @property
    def trained(self) -> int:
        """Steps trained in all, those that were lost among them."""
        return len(self.steps)

    @property
    def pace(self) -> float:
        """Seconds from one step's end to the next one's, in the median, where no save lies between them."""
        pairs = itertools.pairwise(self.steps)
        return statistics.median(
            after.at - before.at
            for before, after in pairs
            if before.number % SAVE_STEPS and before.pid == after.pid
        )

    def goodput(self, pace: float) -> float:
        """Return the share of the wall clock that went into steps which weren't lost, of ``pace`` seconds each."""
        return self.reached * pace / self.seconds

    def spent(self, pace: float) -> Spent:
        """Return where the time went that didn't go into steps which count, of ``pace`` seconds each."""
        end = self.begun + self.seconds
        return spent_beside(self.steps, self.begun, self.killed_at, end, pace, SAVE_STEPS)


def train_under_kills(
    way: str, folder: Path, seconds: float, every: float = 0.0, *, life: int = 0, kills: int = 0
) -> Result:
    """Keep the script running for this long, and SIGKILL the training every so many seconds, about.

    Or, where ``life`` is given, whenever it has trained that many steps, and ``kills`` times: a slow machine comes as
    far as a fast one.
    """
    folder.mkdir(parents=True)
    how, disk, steps = WAYS[way], folder / "disk", folder / "steps"
    begin, begun, killed_at = time.monotonic(), time.time(), list[float]()
    process = _start(how, folder, disk)
    try:
        due, killed, moments = begin + every, -1, random.Random(0)
        while time.monotonic() < begin + seconds and not (life and len(killed_at) == kills):
            time.sleep(0.05)
            pid, old = _trains(steps)
            is_due = pid != killed and old >= life if life else time.monotonic() >= due
            if how.killed and is_due:
                late = moments.uniform(-_SCATTER, _SCATTER)
                due = begin + every * (len(killed_at) + 2 + late)
                found = _trainer(process, pid)
                if found is None:
                    continue
                killed = found.pid
                killed_at.append(time.time())
                if how.empties:
                    _end(process)
                    shutil.rmtree(disk)
                    process = _start(how, folder, disk)
                else:
                    found.kill()
    finally:
        _end(process)
    trained = [Step(float(at), int(step), int(pid)) for at, step, pid in map(str.split, _lines(steps))]
    failed = (folder / "log").read_text(errors="replace").count("Traceback (most recent call last)")
    return Result(begun, seconds, trained, killed_at, failed)


def warm_up() -> None:
    """Import what a start imports, once: the disk's cache and the bytecode are then the same for all ways."""
    ours = ", ".join(
        f"vaultlayer_hf.{name}" for name in ("trainer.trainer", "run.supervise", "stores.folder", "cli.run")
    )
    code = f"import transformers.trainer, {ours}"
    subprocess.run([sys.executable, "-c", code], env=_environment(), check=True)


def _environment(**more: str) -> dict[str, str]:
    """As after an installation: the package's bytecode is kept, as that of all others is."""
    found = environment(**more)
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _start(how: Way, folder: Path, disk: Path) -> subprocess.Popen[bytes]:
    disk.mkdir()
    (disk / "train.py").write_text(SCRIPT)
    script = [sys.executable, "train.py"]
    if how.vl:
        options = ["--vault", str(folder / "vault")] if how.empties else []
        options += [] if how.spare else ["--no-spare"]
        command = [sys.executable, "-m", "vaultlayer_hf.cli", "run", *options, "--", *script]
    else:
        command = ["sh", "-c", f"while true; do {' '.join(script)}; done"]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            command,
            cwd=disk,
            env=_environment(STEPS=str(folder / "steps"), **how.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _trains(path: Path) -> tuple[int, int]:
    """Return which process has trained the newest step, and how many steps it has trained."""
    processes = [int(line.split()[2]) for line in _lines(path)]
    return (processes[-1], processes.count(processes[-1])) if processes else (-1, 0)


def _trainer(process: subprocess.Popen[bytes], pid: int) -> psutil.Process | None:
    """Return the process that trains: which has trained the newest step, or is on its way to its first.

    Beside it `vl run` keeps a spare interpreter with the same command line.
    """
    with contextlib.suppress(psutil.Error):
        found = [
            one
            for one in psutil.Process(process.pid).children(recursive=True)
            if one.cmdline()[-1:] == ["train.py"]
        ]
        return next((one for one in found if one.pid == pid), found[0] if found else None)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    tree = []
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for one in tree:
        with contextlib.suppress(psutil.Error):
            one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(tree, timeout=10)
