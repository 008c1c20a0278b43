"""The wait behind the last step ends: soon for a full vault, in time for a kill, and at once for a person."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.kit.any_files import AnyFiles
from tests.vault.vaults import PARAMETERS, Heard, TrainersFiles, a_session, start, write_checkpoint
from vaultlayer_hf.errors import StoreFullError, StoreUnavailableError
from vaultlayer_hf.session import waiting
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop import draining
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation

FULL = StoreFullError("upload", "data/1/checkpoint-100/model.safetensors", "the disk is full")
AWAY = StoreUnavailableError("upload", "data/1/checkpoint-100/model.safetensors", "no answer")


def at_its_end(folder: Path, error: Exception, **settings: object) -> tuple[Training, Heard]:
    """A training whose last checkpoint the store doesn't take; it would be waited for for more than a day."""

    def refuse(_: Operation) -> None:
        raise error

    def plan(operation: Operation) -> Fault | None:
        if operation.name != "upload":
            return None
        return Fault(during=refuse)  # some bytes are sent, each time again

    vault = str(folder / "vault")
    options = {"flush_timeout": 100_000, "notices": "none", **settings}
    session, heard = a_session(vault, folder / "out", store=FaultStore(open_store(vault), plan), **options)
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    training.save(Save(write_checkpoint(folder / "out", 100), 100, AnyFiles(), parameters=PARAMETERS))
    return training, heard


def ended(training: Training) -> bool:
    """Flush and close; whether all was committed."""
    try:
        return training.flush()
    finally:
        training.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once what is waited for, and the patience with a full vault is short."""
    monkeypatch.setattr(waiting, "_SAY_AFTER", 0.0)
    monkeypatch.setattr(waiting, "FULL_SECONDS", 1.0)


def test_a_full_vault_is_not_waited_for_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says how long it waits for which checkpoint and why, then that this isn't in, as an error, and what becomes
    of it; nothing promises that training goes on. The next start goes on from it."""
    training, heard = at_its_end(tmp_path, FULL)
    assert not ended(training)
    said = [text for text in caplog.messages if text.startswith("waiting up to")]
    assert "for checkpoint-100: the vault is full: upload data/1/checkpoint-100" in said[-1]
    assert said[-1].startswith(("waiting up to 1 s", "waiting up to 0."))
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "checkpoint-100 isn't in the vault, uploads are given up: the vault is full" in error.message
    assert "the next start on this disk goes on from it" in error.message
    assert "training goes on" not in heard.reasons("trouble") + heard.reasons("abandon")
    assert start(str(tmp_path / "vault"), tmp_path / "out")[0] == tmp_path / "out" / "checkpoint-100"


def test_what_is_not_in_the_vault_is_the_last_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Commits of before, whose lines were held back for one at the end, are said ahead of it."""
    vault, full = str(tmp_path / "vault"), []

    def refuse(_: Operation) -> None:
        raise FULL

    def plan(operation: Operation) -> Fault | None:
        return Fault(during=refuse) if full and operation.name == "upload" else None

    store = FaultStore(open_store(vault), plan)
    session, _ = a_session(vault, tmp_path / "out", store=store, flush_timeout=100_000, notices="none")
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    with caplog.at_level("INFO", "vaultlayer_hf"):
        for step in (1, 2, 3):
            full[:] = [step] * (step == 3)
            folder = write_checkpoint(tmp_path / "out", step)
            training.save(Save(folder, step, AnyFiles(), parameters=PARAMETERS))
            assert step == 3 or session.uploader.wait(30)
        assert not ended(training)
    assert "checkpoint-2 committed" in caplog.messages[-2]
    assert "checkpoint-3 isn't in the vault, uploads are given up" in caplog.messages[-1]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", PREEMPTED), ("SIGINT", INTERRUPTED)])
def test_a_signal_ends_the_wait(
    name: str, code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGTERM ends it ahead of the kill, the first Ctrl-C at once where the store takes nothing, and the process is to
    end with their codes."""
    training, _ = at_its_end(tmp_path, AWAY, grace=2.5)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.Signals[name]))
    timer.start()
    try:
        assert not ended(training)  # hangs where nobody looks
    finally:
        timer.join()
    assert training.ending is not None
    assert training.ending.code == code
    assert any("checkpoint-100 isn't in the vault, uploads are given up" in text for text in caplog.messages)


def test_what_moves_is_waited_for_behind_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C in the last upload lets it end, as the store takes it, and the run is complete then."""
    # Uploads have the lowest priority, and all cores may be taken.
    monkeypatch.setattr(draining, "STALLED_SECONDS", 60.0)
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: Operation) -> None:
        reached.set()
        go_on.wait(30)

    vault = str(tmp_path / "vault")
    store = FaultStore(open_store(vault), lambda op: Fault(before=hold) if op.name == "upload" else None)
    session, _ = a_session(vault, tmp_path / "out", store=store, notices="none")
    training = Training(session)
    resume(session, TrainersFiles())
    training.begin(0)
    training.save(Save(write_checkpoint(tmp_path / "out", 100), 100, AnyFiles(), parameters=PARAMETERS))

    def interrupt() -> None:
        reached.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        go_on.set()

    person = threading.Thread(target=interrupt)
    person.start()
    try:
        assert ended(training)
    finally:
        person.join()
    assert training.ending is not None


def test_the_bar_is_full_only_when_all_is_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """However often bytes are sent again, it doesn't say 100 % of what isn't committed."""
    training, _ = at_its_end(tmp_path, FULL)
    assert not ended(training)
    shown = capfd.readouterr().err
    assert "Committing to the vault" in shown
    assert "100%" not in shown
