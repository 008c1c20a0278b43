"""A training that saves beside itself comes to its end at the worst moments: killed, told to stop, short of memory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from transformers.trainer_utils import get_last_checkpoint

from tests.forks import ForkServer
from tests.kit.within_save import MOMENTS
from tests.trainer.kit import steps_of
from vaultlayer_hf.vault.workspace import workspace

TRAIN = "tests.trainer.killed_async_save:train"
FILES = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


@pytest.fixture(scope="module")
def unbroken(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that the training comes to without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    ended = forks.run(TRAIN, {"output": str(folder / "out"), "vault": str(folder / "vault")}, folder / "log")
    return _weights(ended.output)


def _weights(output: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith("WEIGHTS"))


@pytest.mark.parametrize("moment", MOMENTS[:4])  # a seal is made beside what follows
def test_killed_within_a_save(moment: str, unbroken: str, forks: ForkServer, tmp_path: Path) -> None:
    """No folder of a checkpoint is half there, stock's resume included; the run goes on to the same weights."""
    out = tmp_path / "out"
    run = {"output": str(out), "vault": str(tmp_path / "vault")}
    killed = forks.run(TRAIN, {**run, "moment": moment}, tmp_path / "log-1")
    assert killed.code == -signal.SIGKILL
    for folder in out.glob("checkpoint-*"):
        assert {path.name for path in folder.iterdir()} >= FILES
    last = get_last_checkpoint(str(out))
    assert last is not None
    appeared = 4 if moment == "renamed" else 2
    assert last.endswith(f"checkpoint-{appeared}")
    ended = forks.run(TRAIN, run, tmp_path / "log-2")
    assert ended.code == 0
    assert f"BEGUN {appeared}" in ended.output, ended.errors
    assert _weights(ended.output) == unbroken
    assert steps_of(tmp_path / "vault")[-1] == 8
    assert not list(workspace(out).glob("pending-*"))


def test_told_to_stop_while_a_save_is_written(forks: ForkServer, unbroken: str, tmp_path: Path) -> None:
    """A signal that comes while a checkpoint is written costs nothing: it is there, and the last step is committed."""
    run = {"output": str(tmp_path / "out"), "vault": str(tmp_path / "vault")}
    stopped = forks.run(TRAIN, {**run, "moment": "told to stop"}, tmp_path / "log-1")
    assert stopped.code == 75
    assert steps_of(tmp_path / "vault")[-1] == 5
    assert (tmp_path / "out" / "checkpoint-4" / "optimizer.pt").is_file()
    ended = forks.run(TRAIN, run, tmp_path / "log-2")
    assert _weights(ended.output) == unbroken


@pytest.mark.slow
def test_told_to_stop_too_late_for_another_save(forks: ForkServer, tmp_path: Path) -> None:
    """The last save has nothing to be written beside: it counts with all its time, and isn't begun where that is more
    than there is left. What was captured before is there."""
    run = {"output": str(tmp_path / "out"), "vault": str(tmp_path / "vault")}
    stopped = forks.run(TRAIN, {**run, "moment": "told late"}, tmp_path / "log")
    assert stopped.code == 75
    assert "training stops at step 5 without another save" in stopped.output
    assert (tmp_path / "out" / "checkpoint-4" / "optimizer.pt").is_file()
    assert not (tmp_path / "out" / "checkpoint-5").exists()


def test_a_limit_of_memory(forks: ForkServer, unbroken: str, tmp_path: Path) -> None:
    """Under a real limit that leaves no room for a copy, saves are stock's, which is said, and training is the same."""
    run = {"output": str(tmp_path / "out"), "vault": str(tmp_path / "vault"), "moment": "limited"}
    ended = forks.run(TRAIN, run, tmp_path / "log")
    assert ended.code == 0
    assert "of host memory, and" in ended.output
    assert _weights(ended.output) == unbroken


def test_a_script_that_fails_behind_a_save(forks: ForkServer, tmp_path: Path) -> None:
    """With the callback alone, a checkpoint that is being written as the script fails is there, and committed."""
    run = {"output": str(tmp_path / "out"), "vault": str(tmp_path / "vault"), "moment": "fails"}
    failed = forks.run(TRAIN, run, tmp_path / "log")
    assert failed.code == 1
    assert "Boom" in failed.errors
    assert (tmp_path / "out" / "checkpoint-4" / "optimizer.pt").is_file()
    assert steps_of(tmp_path / "vault")[-1] == 4
