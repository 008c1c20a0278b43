"""Trainings for `vl run`: scripts as people write them, which know nothing of this package, and what befalls them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.servers import die_with_parent
from vaultlayer_hf.run.journal import read_journal, read_notes

SCRIPT = textwrap.dedent(
    """
    import hashlib, os, sys, time, torch
    torch.set_num_threads(1)
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
    from tests.kit.models import tiny_llama

    class Fate(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            at, action = os.environ.get("FATE", "0 ").split(" ", 1)
            once = os.environ.get("FATE_ONCE")
            rank = int(os.environ.get("RANK", "0"))
            if state.global_step == int(at) and rank == int(os.environ.get("FATE_RANK", rank)):
                if once and os.path.exists(f"{once}-{rank}"):
                    return
                if once:
                    open(f"{once}-{rank}", "w").close()
                exec(action, {**globals(), **locals()})

        def on_step_end(self, args, state, control, **kwargs):
            time.sleep(float(os.environ.get("PACE", "0")))

    class Model(LlamaForCausalLM):
        poison = False
        largest = int(os.environ.get("LARGEST", 10**9))
        hunger = int(os.environ.get("HUNGER", "0"))
        touch = "TOUCH" in os.environ

        def forward(self, input_ids=None, labels=None, **kwargs):
            if len(input_ids) > self.largest:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            if self.hunger:
                eaten = torch.empty(len(input_ids) * self.hunger, dtype=torch.uint8)
                if self.touch:
                    eaten.fill_(1)
            found = super().forward(input_ids=input_ids, labels=labels, **kwargs)
            if self.poison and self.training:
                found.loss = found.loss * float("nan")
            return found

    set_seed(0)
    model = tiny_llama(cls=Model, attention_dropout=float(os.environ.get("DROPOUT", "0.2")))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (40, 8))]
    args = TrainingArguments(
        "out", max_steps=12, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        use_cpu=True, report_to=[], disable_tqdm=True, seed=3, dataloader_pin_memory=False,
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    exec(os.environ.get("BEFORE", ""))
    trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[Fate()])
    exec(os.environ.get("TRAIN", "trainer.train()"))
    weights = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
    if int(os.environ.get("RANK", "0")) == 0:
        print("WEIGHTS", hashlib.sha256(weights).hexdigest(), flush=True)
        print("LOSSES", [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], flush=True)
    """
)
"""An ordinary script: 12 steps, a save every 2. What befalls it is in its environment."""


@dataclass
class Ran:
    """How a `vl run`, or a plain run, ended.

    Attributes:
        code: its exit code.
        out, err: what it wrote.
        folder: where.
    """

    code: int
    out: str
    err: str
    folder: Path

    @property
    def weights(self) -> str:
        """The digest of the weights that the script has printed at its end."""
        return re.findall(r"WEIGHTS (\w+)", self.out)[-1]

    @property
    def losses(self) -> list[float]:
        """The losses of all steps."""
        return [float(one) for one in json.loads(re.findall(r"LOSSES (.*)", self.out)[-1].replace("'", ""))]

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The run folder's journal."""
        return read_journal(self.folder / ".vl")

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The journal's lines of a kind."""
        return [line for line in self.journal if line["kind"] == kind]

    @property
    def causes(self) -> list[str]:
        """The cause of each death."""
        return [line["cause"] for line in self.lines("death")]

    @property
    def actions(self) -> list[str]:
        """Each decision's action."""
        return [line["action"] for line in self.lines("decision")]

    def notes(self, attempt: int, kind: str, rank: int = 0) -> list[dict[str, Any]]:
        """A rank's notes of a kind."""
        lines = read_notes(self.folder / ".vl" / f"attempt-{attempt:04}").get(rank, [])
        return [line for line in lines if line["kind"] == kind]


def torchrun(world: int = 2) -> list[str]:
    """A launcher for ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]


def environment(**more: str) -> dict[str, str]:
    """The environment of a program here, without options of this package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VAULTLAYER_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **kept,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
        **more,
    }


def start(
    folder: Path,
    *command: str,
    options: tuple[str, ...] = (),
    prefix: Sequence[str] = (),
    spare: bool = False,
    **more: str,
) -> subprocess.Popen[str]:
    """Start `vl run` on a command in a folder. A spare costs the imports once more, so a test asks for it."""
    return subprocess.Popen(
        [
            *prefix,
            sys.executable,
            "-m",
            "vaultlayer_hf.cli",
            "run",
            "--backoff",
            "0",
            *(() if spare else ("--no-spare",)),
            *options,
            "--",
            *command,
        ],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )


def finish(process: subprocess.Popen[str], folder: Path, timeout: float = 150.0) -> Ran:
    """Wait for a `vl run`; one that hangs is ended, and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"vl run hangs after {timeout:.0f} s:\n{out[-2000:]}\n{err[-4000:]}") from None
    return Ran(process.returncode, out, err, folder)


def vl_run(
    folder: Path,
    *command: str,
    options: tuple[str, ...] = (),
    script: str = SCRIPT,
    spare: bool = False,
    timeout: float = 150.0,
    **more: str,
) -> Ran:
    """Write a script into a folder and run a command there under `vl run`, for so many seconds at most."""
    (folder / "train.py").write_text(script)
    command = command or (sys.executable, "train.py")
    ran = finish(start(folder, *command, options=options, spare=spare, **more), folder, timeout)
    print(ran.err[-6000:])  # pytest shows it where the test fails
    return ran


def plain(folder: Path, *command: str, **more: str) -> Ran:
    """Run a command without `vl run`: the reference."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    for _ in range(4):
        done = subprocess.run(
            list(command or (sys.executable, "train.py")),
            cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        # A rank of stock's may abort at its very end, when a thread of torch's meets a Python that is gone.
        if done.returncode == 0 or "terminate called without an active exception" not in done.stderr:
            break
        shutil.rmtree(folder / "out")  # what it trained once more goes on from nothing
    assert done.returncode == 0, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, folder)
