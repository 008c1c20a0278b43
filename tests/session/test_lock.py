"""One run at a time in an output_dir; and what must not keep a run from starting there."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.trainer.kit import Boom, Do, FailAt, trainer
from tests.vault.vaults import a_session, start
from vaultlayer_hf import Checkpointer, SettingsError
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session import lock as lock_module
from vaultlayer_hf.session.lock import OutputLock
from vaultlayer_hf.vault import workspace as workspace_module
from vaultlayer_hf.vault.workspace import workspace

HOLD = """
import os, sys, time
from pathlib import Path
from vaultlayer_hf.base.events import Events
from vaultlayer_hf.session.lock import OutputLock
lock = OutputLock(Path(sys.argv[1]), sys.argv[2], Events())
lock.acquire()
child = os.fork() if sys.argv[3:] else 1
os.write(1, (f"{child}" if lock.held else "child").encode() + b"\\n")  # in one piece: both processes write
time.sleep(600)
"""


@contextmanager
def holder(output: Path, vault: str, *, with_child: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock; with a forked child that outlives it."""
    command = [sys.executable, "-c", HOLD, str(output), vault, *(["child"] if with_child else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(1 + with_child)]
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for line in lines:
            if with_child and line.isdigit():
                os.kill(int(line), signal.SIGKILL)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    """The second run is told which run is there and what to do, claims nothing, and may start once the first ends."""
    first, _ = a_session(str(tmp_path / "one"), tmp_path / "output")
    first.enter()
    second, _ = a_session(str(tmp_path / "two"), tmp_path / "output")
    with pytest.raises(
        SettingsError, match=r"in use by another run, file://.*one \(process .*two: .*an output_dir of"
    ):
        second.enter()
    assert not list((tmp_path / "two").rglob("*.json"))
    first.close()
    second.enter()
    second.close()


def test_a_trainer_in_the_folder_of_another_run(tmp_path: Path) -> None:
    """A Trainer says the same, before its first step."""
    first, _ = a_session(str(tmp_path / "one"), tmp_path / "output")
    first.enter()
    try:
        with pytest.raises(SettingsError, match="in use by another run"):
            trainer(tmp_path / "output", resume=str(tmp_path / "two")).train()
    finally:
        first.close()


def test_nothing_is_written_into_the_folder_ahead_of_the_first_checkpoint(tmp_path: Path) -> None:
    """Many scripts end where they find files and no checkpoint: a run that dies before its first save leaves none."""
    output = tmp_path / "output"
    for attempt in range(3):
        empty: list[int] = []
        look = Do(on_step_end=lambda _, empty=empty: empty.append(len(list(output.iterdir()))))
        with pytest.raises(Boom):
            trainer(output, resume=tmp_path / "vault", save_steps=3, callbacks=[look, FailAt(2)]).train()
        assert empty == [0, 0], attempt
    part = torch.nn.Linear(1, 1)
    ckpt = Checkpointer(str(tmp_path / "loop"), model=part, output_dir=output, save_every=3)
    ckpt.resume()
    ckpt.step()
    assert list(output.iterdir()) == []
    ckpt.close()


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    """Whatever it has forked lives on without the lock: the next run starts at once."""
    output, vault = tmp_path / "output", (tmp_path / "two").as_uri()
    with holder(output, "file:///one", with_child=True) as process:
        process.kill()
        process.wait()
        lock = OutputLock(output, vault, Events())
        lock.acquire()
        assert lock.held
        lock.release()


def test_whoever_lets_go_removes_the_file(tmp_path: Path) -> None:
    """A lock on a file that its last holder has removed isn't one: who waits meets the next run at the new file."""
    output, vault = tmp_path / "output", (tmp_path / "v").as_uri()
    first, waits, third = (OutputLock(output, vault, Events()) for _ in range(3))
    first.acquire()
    waits.acquire()
    assert [first.held, waits.held] == [True, False]
    first.release()
    assert not workspace(output).exists()
    third.acquire()
    waits.retry()
    assert [third.held, waits.held] == [True, False]
    third.release()
    waits.retry()
    assert waits.held
    waits.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_emptied_stays_locked(tmp_path: Path) -> None:
    """A script that removes its output folder at each start doesn't get into another run that way."""
    output = tmp_path / "output"
    output.mkdir()
    with holder(output, "file:///one"):
        output.rmdir()
        with pytest.raises(SettingsError, match="in use by another run"):
            OutputLock(output, "file:///two", Events()).acquire()


def test_where_the_lock_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the folder itself, whatever it is called; within it, where nothing can be beside it."""
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    beside = tmp_path / "disk" / ".out.vaultlayer"
    assert workspace(tmp_path / "out") == workspace(tmp_path / "disk" / ".." / "disk" / "out") == beside
    assert workspace(Path("/")) == Path("/_vaultlayer")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"36 35 98:0 /a {tmp_path}/disk/out rw,noatime - ext4 /dev/root rw\n")
    monkeypatch.setattr(workspace_module, "_MOUNTS", mounts)
    assert workspace(tmp_path / "out") == tmp_path / "out" / "_vaultlayer"


def test_a_living_process_of_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fenced and said, and never keeps the next start away; once it has ended, the lock is the new run's."""
    monkeypatch.setattr(lock_module, "LAST_HOLDER_SECONDS", 0.2)
    output, vault = tmp_path / "output", tmp_path / "vault"
    with holder(output, vault.as_uri()) as process:
        session, heard = a_session(str(vault), output)
        session.enter()
        assert f"process {process.pid} on" in heard.reasons("notice")
        assert "goes on beside it" in heard.reasons("notice")
        assert not session.lock.held
        process.kill()
        process.wait()
        session.lock.retry()
        assert session.lock.held
        session.close()


def test_one_process_starts_its_own_run_again(tmp_path: Path) -> None:
    """A notebook's cell that is run again waits for nobody, though the run before is still there."""
    first, _ = a_session(str(tmp_path / "vault"), tmp_path / "output")
    first.enter()
    _, heard = start(str(tmp_path / "vault"), tmp_path / "output")
    assert "still uses" not in heard.reasons("notice")
    first.close()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the run starts."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    session, heard = a_session(str(tmp_path / "vault"), tmp_path / "output")
    session.enter()
    session.close()
    assert "can't be locked" in heard.reasons("notice")
