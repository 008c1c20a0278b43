"""A real vault, written by a real training run, for the commands to look at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT
from tests.forks import ForkServer

TRAIN = """
import sys, time, torch
torch.set_num_threads(1)
from transformers import TrainerCallback, TrainingArguments, set_seed
from tests.kit.models import tiny_llama
from vaultlayer_hf import Trainer, open_vault

class Patient(TrainerCallback):
    # A save that finds the one before it still under way replaces it: so that none is, wait for each commit.
    def on_step_begin(self, args, state, control, **kwargs):
        while state.global_step and state.global_step % 20 == 0:
            with open_vault(sys.argv[2]) as vault:
                if state.global_step in [commit.step for commit in vault.checkpoints()]:
                    break
            time.sleep(0.01)

set_seed(0)
model = tiny_llama()
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (64, 16))]
args = TrainingArguments(
    sys.argv[1], max_steps=60, save_steps=20, logging_steps=10, per_device_train_batch_size=4, use_cpu=True,
    report_to=[], disable_tqdm=True,
)
Trainer(
    model=model, args=args, train_dataset=rows, callbacks=[Patient()], resume=sys.argv[2]
).train()
"""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self):
        """What it printed, parsed."""
        return json.loads(self.out)


_forks: list[ForkServer] = []


@pytest.fixture(scope="session", autouse=True)
def _fork_server(forks: ForkServer) -> Iterator[None]:
    """Let ``vl`` fork."""
    _forks.append(forks)
    yield
    _forks.clear()


def vl(*arguments: str, cwd: Path | None = None, **environment: str) -> Done:
    """Run `vl` as a process of its own, as a person would; a forked one where the fork server runs."""
    variables = {**os.environ, "COLUMNS": "120", **environment}
    if _forks:
        with tempfile.TemporaryDirectory() as folder:
            call = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd()), "environment": variables}
            outcome = _forks[0].run("tests.cli.forked:run", call, Path(folder), timeout=280)
            return Done(outcome.code, outcome.output, outcome.errors)
    done = subprocess.run(
        [sys.executable, "-m", "vaultlayer_hf.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env=variables,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder vault of a finished run with checkpoints at steps 20, 40 and 60. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder / "output"), str(folder / "vault")],
        check=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return folder / "vault"


@pytest.fixture
def vault(trained, tmp_path) -> Path:
    """A copy of that vault, to damage."""
    shutil.copytree(trained, tmp_path / "vault")
    return tmp_path / "vault"
