"""Told to stop under what starts trainings for real: python itself, torchrun, and a notebook's kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.preemption.test_runs import two_ranks_work
from tests.ranks.launchers import Launched
from tests.trainer.kit import steps_of

pytestmark = pytest.mark.slow

SCRIPT = """
import time
from pathlib import Path
from tests.trainer.kit import Do, trainer

def step(state):
    time.sleep(0.05)
    Path("at").write_text(str(state.global_step))

trainer("output", resume="vault", callbacks=[Do(on_step_end=step)], save_strategy="no", max_steps=2000).train()
print("BEHIND TRAIN")
"""
ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VAULTLAYER_FLUSH_TIMEOUT": "45"}


def test_python(tmp_path: Path) -> None:
    """A plain script: 75 for SIGTERM, without a traceback; death by SIGINT (130 in a shell) for Ctrl-C."""
    processes = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = tmp_path / number.name
        folder.mkdir()
        processes[number] = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=folder,
            env={**os.environ, **ENV, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        for number, process in processes.items():
            _wait_for(tmp_path / number.name / "at", process)
            process.send_signal(number)
        texts = {number: process.communicate(timeout=60) for number, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    assert {number: one.returncode for number, one in processes.items()} == {
        signal.SIGTERM: 75,
        signal.SIGINT: -2,
    }
    for number, (out, errors) in texts.items():
        assert "BEHIND TRAIN" not in out
        assert ("Traceback" in errors) == (number == signal.SIGINT), errors
        folder = tmp_path / number.name
        assert steps_of(folder / "vault") == [int((folder / "at").read_text())]


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not two_ranks_work(), reason="the oldest versions can't train several CPU ranks")
def test_torchrun(tmp_path: Path) -> None:
    """SIGTERM to torchrun's agent: both ranks save at one step, end with 75, and the agent says so."""
    launched = Launched(
        tmp_path, [tmp_path / "output"] * 2, [2], vault=str(tmp_path / "vault"), pace=0.1, max_steps=1000
    )
    launch = launched.start(save_strategy="no")
    for rank in range(2):
        launch.await_note(rank, timeout=90, step=2)
    launch.agents[0].send_signal(signal.SIGTERM)
    assert launch.wait() == [1], launch.errors()
    ends = [launch.notes(rank)[-1] for rank in range(2)]
    last = [max(note["step"] for note in launch.notes(rank) if "step" in note) for rank in range(2)]
    assert last[0] == last[1], ends
    assert steps_of(tmp_path / "vault") == [last[0]]


def _handles() -> list[str]:
    """Return torchrun's option for signals; empty where this release reads the variable alone."""
    from torch.distributed.run import get_args_parser

    option = "--signals-to-handle"
    known = any(option in action.option_strings for action in get_args_parser()._actions)
    return [f"{option}={_SIGNALS}"] if known else []


_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@pytest.mark.skipif(not two_ranks_work(), reason="the oldest versions can't train several CPU ranks")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_torchrun_and_its_workers_at_once(tmp_path: Path, name: str) -> None:
    """As Slurm signals every process of a step: both ranks save at one step, and nobody outlives torchrun."""
    launched = Launched(
        tmp_path,
        [tmp_path / "output"] * 2,
        [2],
        env={"VAULTLAYER_SIGNALS": f"SIGINT,{name}", "TORCHELASTIC_SIGNALS_TO_HANDLE": _SIGNALS},
        options=_handles(),
        vault=str(tmp_path / "vault"),
        pace=0.1,
        max_steps=1000,
    )
    launch = launched.start(save_strategy="no")
    for rank in range(2):
        launch.await_note(rank, timeout=90, step=2)
    workers = [launch.worker(rank) for rank in range(2)]
    for process in [launch.agents[0], *workers]:
        process.send_signal(signal.Signals[name])
    assert launch.agents[0].wait(60) in (1, -signal.Signals[name]), launch.errors()
    assert not [worker for worker in workers if worker.is_running() and worker.status() != "zombie"]
    launch.wait()
    last = [max(note["step"] for note in launch.notes(rank) if "step" in note) for rank in range(2)]
    assert last[0] == last[1], launch.errors()
    assert steps_of(tmp_path / "vault") == [last[0]]
    assert "torchrun itself dies" not in (launch.folder / "agent-0").read_text()


@pytest.mark.skipif(not two_ranks_work(), reason="the oldest versions can't train several CPU ranks")
def test_torchrun_that_dies_of_a_signal_is_said(tmp_path: Path) -> None:
    """Where torchrun isn't told of SIGUSR1, one line at the start says that it dies of it, and what to do."""
    env = {"VAULTLAYER_SIGNALS": "SIGTERM,SIGUSR1"}
    launched = Launched(tmp_path, [tmp_path / "output"] * 2, [2], env=env, vault=str(tmp_path / "vault"))
    launch = launched.start()
    assert launch.wait() == [0], launch.errors()
    assert (launch.folder / "agent-0").read_text().count("torchrun itself dies of SIGUSR1") == 1


def test_a_notebook_lives_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM and an interrupt end the training and not the kernel: the next cell finds all that was there before."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {**ENV, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)
    cell = (
        SCRIPT.replace('"output"', "name")
        .replace('"vault"', "name + '-vault'")
        .replace('"at"', "name + '-at'")
    )
    cells = [f"name = 'term'{cell}", "name, 6 * 7", f"name = 'int'{cell}", "name, 7 * 8"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.allow_errors = True

    def tell(name: str, number: signal.Signals) -> None:
        while not (tmp_path / f"{name}-at").exists():
            time.sleep(0.02)
        os.kill(client.km.provisioner.pid, number)

    for name, number in (("term", signal.SIGTERM), ("int", signal.SIGINT)):
        threading.Thread(target=tell, args=(name, number), daemon=True).start()
    client.execute()
    errors = [
        output.get("ename") for cell in notebook.cells for output in cell["outputs"] if "ename" in output
    ]
    assert errors == ["Preempted", "KeyboardInterrupt"]
    results = [output["data"]["text/plain"] for cell in notebook.cells[1::2] for output in cell["outputs"]]
    assert results == ["('term', 42)", "('int', 56)"]
    for name in ("term", "int"):
        assert steps_of(tmp_path / f"{name}-vault") == [int((tmp_path / f"{name}-at").read_text())]
