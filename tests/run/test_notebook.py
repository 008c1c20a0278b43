"""A notebook under `vl run`: its kernel is what trains, and what is killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from tests.run.programs import Ran, finish, start
from vaultlayer_hf import open_vault


def test_a_notebook_is_run_and_started_again_when_its_kernel_is_killed(tmp_path) -> None:
    """The kernel has the hook, what the cells print is printed, and outputs are kept beside the attempt's logs."""
    cells = [
        "import os, sys\nprint('hooked', 'VAULTLAYER_RUN_ATTEMPT' in os.environ, flush=True)",
        "if not os.path.exists('once'):\n    open('once', 'w')\n    os.kill(os.getpid(), 9)",
        "print('the end')",
    ]
    _write(tmp_path, cells)
    before = (tmp_path / "train.ipynb").read_bytes()
    ran = finish(start(tmp_path, "train.ipynb"), tmp_path)
    assert ran.code == 0, ran.err
    assert ran.causes == ["killed", "finished"]
    assert "hooked True\n" in ran.out
    assert "the end\n" in ran.out
    assert (tmp_path / "train.ipynb").read_bytes() == before
    kept = nbformat.read(tmp_path / ".vl" / "attempt-0002" / "train.ipynb", as_version=4)
    assert kept.cells[2].outputs[0].text == "the end\n"


TRAINS = [
    "import os, time\nfrom tests.kit.models import tiny_llama\nfrom transformers import Trainer, TrainingArguments",
    """
import torch
from transformers import TrainerCallback
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print("STEP", state.global_step, flush=True)
        time.sleep(0.1)
    def on_save(self, args, state, control, **kwargs):
        print("SAVES", flush=True)
        time.sleep(7)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (40, 8))]
args = TrainingArguments("out", max_steps=200, save_strategy="no", use_cpu=True, report_to=[], disable_tqdm=True)
Trainer(model=tiny_llama(), args=args, train_dataset=rows, callbacks=[Slow()]).train()
""",
    "print('NEVER')",
]
"""A notebook whose saves take longer than nbclient leaves to a kernel that it ends."""


def _write(folder: Path, cells: Sequence[str]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / "train.ipynb")


def _stopped(folder: Path, cells: Sequence[str], at: str, number: signal.Signals) -> Ran:
    """Run a notebook until it prints a line, which has to come while its cell runs; then send `vl run` a signal."""
    _write(folder, cells)
    running = start(folder, "train.ipynb", options=("--vault", str(folder / "v")))
    seen = ""
    while at not in seen:
        line = running.stdout.readline()
        assert line, running.stderr.read()
        seen += line
    running.send_signal(number)
    ran = finish(running, folder)
    return replace(ran, out=seen + ran.out)


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGINT, "the notebook was interrupted in cell 2: training was stopped by Ctrl-C", 130),
        (signal.SIGTERM, "the notebook was told to end (SIGTERM) in cell 2: 75", 75),
    ],
)
def test_a_notebook_that_is_told_to_end_saves_and_says_so_in_a_line(
    number: signal.Signals, said: str, code: int, tmp_path: Path
) -> None:
    """Its output comes while the cell runs; the signal reaches the training, which has all the time of its save."""
    ran = _stopped(tmp_path, TRAINS, "STEP 3\n", number)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "SAVES\n" in ran.out
    assert "Traceback" not in ran.err
    assert "NEVER" not in ran.out
    with open_vault(str(tmp_path / "v")) as vault:
        assert vault.checkpoints()[-1].step >= 3


def test_a_notebook_whose_cell_goes_on_is_ended_behind_it(tmp_path: Path) -> None:
    """A cell that passes over its interruption ends as it likes, and no further one is begun."""
    cells = [
        "import time\nprint('BEGINS', flush=True)",
        "try:\n    print('WAITS', flush=True)\n    time.sleep(100)\nexcept KeyboardInterrupt:\n    print('ON')",
        "print('NEVER')",
    ]
    ran = _stopped(tmp_path, cells, "WAITS\n", signal.SIGINT)
    assert "ON\n" in ran.out
    assert "NEVER" not in ran.out
    assert "the notebook was interrupted behind cell 2\n" in ran.err
    assert "Traceback" not in ran.err
    assert ran.code == 130
