"""Several `vl run`s in one run folder: one that is over hides none that lives."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from vaultlayer_hf.cli.living_run import is_heard, living_run
from vaultlayer_hf.run.journal import OUTPUT, Journal, append
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.vault.log.log import Log, Writer

from . import schema
from .conftest import vl

HERE = platform.node()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a `vl run`."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def folder(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Path:
    """A run folder in which a `vl run` trains, and a second one was started beside it and has failed."""
    first, second = Journal(tmp_path / ".vl"), Journal(tmp_path / ".vl")
    first.write("begin", pid=sleeper.pid, host=HERE)
    attempt = first.new_attempt()
    (attempt / OUTPUT).write_text("of the first\n")
    first.write("start", pid=1, folder=attempt.name, divide=1, at=None)
    append(attempt / "rank-0.jsonl", {"time": time.time(), "kind": "train", "step": 0, "max_steps": 1200})
    append(attempt / "rank-0.jsonl", {"time": time.time() + 1, "kind": "log", "step": 7, "loss": 1.0})
    second.write("begin", pid=sleeper.pid, host=HERE)
    attempt = second.new_attempt()
    (attempt / OUTPUT).write_text("of the second\n")
    second.write("start", pid=1, folder=attempt.name, divide=1, at=None)
    second.write("death", cause="startup", code=1, step=None, detail="rank 0 raised ValueError")
    second.write("decision", action="stop", reason="it would fail again", wait=0.0, divide=1, at=None)
    second.write("end", code=5, reason="it would fail again", attempts=1, step=None, seconds=1)
    return tmp_path


def test_status_tells_of_the_run_that_lives(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """It runs, at its own step, whatever became of the one beside it; killed, it is gone without a word."""
    found = vl("status", "--json", cwd=folder).json()
    assert schema.misfits(found, schema.STATUS) == []
    assert (found["state"], found["step"]) == ("running", 7)
    assert [(item["number"], item["cause"]) for item in found["attempts"]] == [(2, "startup"), (1, None)]
    assert "alive" in vl("status", cwd=folder).out
    sleeper.kill()
    sleeper.wait()
    assert vl("status", "--json", cwd=folder).json()["state"] == "stopped"


def test_logs_follow_the_run_that_lives(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Its newest attempt is shown, and --follow stays with it until it ends, be it killed without a word."""
    output = folder / ".vl" / "attempt-0001" / OUTPUT
    assert vl("logs", cwd=folder).out == "of the first\n"
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "logs", "--follow"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "of the first\n"
        with output.open("a") as file:
            file.write("more\n")
        assert process.stdout.readline() == "more\n"
        sleeper.kill()
        sleeper.wait()
        assert process.stdout.read() in ("", "of the second\n")
    assert process.returncode == 0


def test_stop_reaches_the_run_that_lives(folder: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """It is told to save and end, though another one has ended behind its begin."""
    done = vl("stop", cwd=folder)
    assert (done.code, str(sleeper.pid) in done.out) == (0, True), done.err
    assert sleeper.wait() == -signal.SIGTERM


def test_stop_now_ends_it_without_a_save(tmp_path: Path) -> None:
    """A training that would save when it is told to end doesn't come to it, and the command says no more than that."""
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, time\n"
        "def end(*_):\n    time.sleep(0.5); pathlib.Path('saved').touch(); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\npathlib.Path('ready').touch()\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-m", "vaultlayer_hf.cli", "run", "--", sys.executable, "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        done = vl("stop", "--now", cwd=tmp_path)
        assert (done.code, done.err, "end at once" in done.out) == (0, "", True)
        assert process.wait(30) != 0
    assert not (tmp_path / "saved").exists()


def test_stop_finds_the_run_of_a_vault_that_is_named(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """The `vl run` that trains it here is told to end; without one the error says what else can be named."""
    vault = tmp_path / "vault"
    alone = vl("stop", str(vault), cwd=tmp_path)
    assert (alone.code, "the folder of a run on this machine, such as .vl" in alone.err) == (1, True)
    journal = Journal(tmp_path / ".vl")
    journal.write("begin", pid=sleeper.pid, host=HERE, vault=f"file://{vault}")
    store = open_store(str(vault))
    Writer.claim(store, Log(store))
    done = vl("stop", str(vault), cwd=tmp_path)
    assert (done.code, str(sleeper.pid) in done.out) == (0, True), done.err
    assert sleeper.wait() == -signal.SIGTERM
    assert vl("stop", str(vault), cwd=tmp_path).code == 1


def test_a_number_that_is_another_process_now_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that was made long after a `vl run` began has only got its number."""
    begin = {"kind": "begin", "run": "a", "host": HERE, "pid": sleeper.pid, "time": time.time()}
    assert living_run([begin], lambda _: False) is begin
    before = {**begin, "time": time.time() - 3600}
    assert living_run([before], lambda _: True) is None
    with mock.patch("os.kill", side_effect=PermissionError):
        assert living_run([begin], lambda _: False) is begin
    assert living_run([{**begin, "pid": 2**30}], lambda _: True) is None
    assert living_run([{**begin, "host": "elsewhere"}], lambda _: True) is not None


def test_of_another_machine_its_own_pulse_counts() -> None:
    """What a `vl run` and its attempts write says that it lives, and nothing that another one in the folder does."""
    mine = {"kind": "begin", "run": "a", "attempt": 0, "time": 0.0, "pid": os.getpid(), "host": "elsewhere"}
    lines = [
        mine,
        {"kind": "start", "run": "a", "attempt": 1, "time": 5.0},
        {"kind": "start", "run": "b", "attempt": 2, "time": 900.0},
    ]
    assert is_heard(mine, lines, {1: {"time": 950.0}, 2: {"time": 990.0}}, now=1000.0)
    assert not is_heard(mine, lines, {1: {"time": 50.0}, 2: {"time": 990.0}}, now=1000.0)
