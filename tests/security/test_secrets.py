"""Planted credentials are in nothing that a run, or a command, writes: files, logs, events, what is printed."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from tests.kit.inside import use_store
from tests.servers import SeaweedServer
from tests.trainer.kit import Boom, FailAt, Recorder, trainer
from tests.vault.tools import objects
from vaultlayer_hf import Settings, StoreDeniedError, VaultLayerError
from vaultlayer_hf.base.secrets import SHOWN, redact
from vaultlayer_hf.run.journal import append, read_lines
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.testing.faults import Fault, FaultStore

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted/secret+of+aws/0123456789abcdef",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "WANDB_API_KEY": "planted0wandb0key0123456789",
    "AZURE_STORAGE_ACCOUNT_KEY": "planted+azure+key==",
    "MY_DATABASE_PASSWORD": "planted-password",
}
FORMS = [
    "https://user:planted-word@host/x",
    "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=AKIAPLANTEDPLANTED00%2F2026&X-Amz-Signature=plantedplanted",
    "https://account.blob.core.windows.net/c/x?sv=2024&sig=planted%2Bplanted%3D",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=plantedplanted==;EndpointSuffix=core.windows.net",
    "AKIAPLANTEDPLANTED00",
    "HFAKplantedplantedplanted",
    "hf_plantedplantedplantedplanted",
    "eyJhbGciOiJIUzI1.plantedplanted.planted-planted",
    "-----BEGIN PRIVATE KEY-----\nplantedplanted\n-----END PRIVATE KEY-----",
]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's variables hold secrets of every kind."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def assert_clean(text: str, where: str) -> None:
    """Check that nothing planted is in a text."""
    for secret in (*PLANTED.values(), "planted"):
        assert secret.lower() not in text.lower(), f"{where}: {secret}"


@pytest.mark.parametrize("form", FORMS)
def test_what_looks_like_a_secret_is_taken_out(form: str, tmp_path: Path) -> None:
    """A token, a key, a signature or a password is replaced in a text, and in a line of a journal, which stays JSON."""
    assert_clean(redact(f"it failed: {form}: try again"), "text")
    assert redact(f"it failed: {form}: try again").startswith("it failed: ")
    append(tmp_path / "journal", {"kind": "begin", "command": ["python", "x.py", "--at", form, 'a"b\\']})
    (line,) = read_lines(tmp_path / "journal")
    assert_clean(json.dumps(line), "journal")
    assert line["command"][-1] == 'a"b\\'


def test_what_a_variable_holds_is_taken_out(planted: None) -> None:
    """The value of a variable whose name says that it is secret goes; other values, and words, stay."""
    assert redact(f"x {PLANTED['MY_DATABASE_PASSWORD']} y") == f"x {SHOWN} y"
    usual = f"checkpoint-500 committed to s3://bucket/run: 1.5 MB in 2 s; {os.environ['PATH']}"
    assert redact(usual) == usual


@pytest.mark.slow
def test_a_run_writes_no_secret(
    planted: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A store whose errors repeat credentials, a failure, a resume: none is in vault, output folder, log or events."""
    caplog.set_level(logging.DEBUG, "vaultlayer_hf")
    vault = tmp_path / "vault"
    leaks = iter([*FORMS, *PLANTED.values()])

    def plan(operation: object) -> Fault | None:
        leak = next(leaks, None) if getattr(operation, "name", "") == "upload" else None
        return Fault.refused(StoreDeniedError("upload", "x", f"no: {leak}", f"see {leak}")) if leak else None

    run = trainer(tmp_path / "out", resume=Settings(vault=str(vault), flush_timeout=5), callbacks=[FailAt(7)])
    record = Recorder(run)
    with pytest.raises(Boom):
        use_store(run, FaultStore(FolderStore(str(vault)), plan)).train()
    again = trainer(tmp_path / "out", resume=vault)
    record_again = Recorder(again)
    again.train()
    assert any(SHOWN in event.message for event in record.events), "no error got as far as an event"
    for event in (*record.events, *record_again.events):
        assert_clean(f"{event.message} {event.fields}", f"event {event.kind}")
    assert_clean(caplog.text, "log")
    assert_clean("".join(capfd.readouterr()), "output")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".bin":
            assert b"planted" not in path.read_bytes().lower(), path


def test_files_are_nobody_elses_to_write(tmp_path: Path) -> None:
    """Under the usual umask nothing that a run makes can be written by others, and nothing is made executable."""
    before = os.umask(0o022)
    try:
        trainer(tmp_path / "out", resume=tmp_path / "vault", max_steps=4).train()
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        mode = path.stat().st_mode
        assert not mode & (stat.S_IWGRP | stat.S_IWOTH), path
        assert path.is_dir() or not mode & 0o111, path


def test_rights_of_readers_writers_and_nobody(
    s3_server: SeaweedServer, s3_env: dict[str, str], s3_uri: str
) -> None:
    """What the guide to stores says each needs is enough on a server that enforces it, and less isn't."""
    writer = open_store(s3_uri)
    writer.create("log/00000000000000000001.json", b"{}")
    os.environ.update(s3_server.env(reader=True))
    reader = open_store(s3_uri)
    assert list(objects(reader)) == ["log/00000000000000000001.json"]
    for write in (
        lambda: reader.create("log/00000000000000000002.json", b"{}"),
        lambda: reader.write("hint.json", b"{}"),
        lambda: reader.delete(["log/00000000000000000001.json"]),
    ):
        with pytest.raises(VaultLayerError):
            write()
    os.environ.update(s3_server.env())
    assert list(objects(open_store(s3_uri))) == ["log/00000000000000000001.json"]
