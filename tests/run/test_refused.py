"""A vault that no other try opens ends `vl run` at its first attempt, with what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kit.disks import read_only_at
from tests.run.programs import Ran, vl_run
from tests.servers import SeaweedServer
from tests.vault.vaults import train
from vaultlayer_hf.vault.signature import SIGNING

SCRIPT = """
import os
from pathlib import Path
from tests.vault.vaults import start

start(os.environ["VAULTLAYER_VAULT"], Path("out"))
"""


def _run(folder: Path, vault: str, **more: str) -> Ran:
    return vl_run(folder, sys.executable, "train.py", options=("--vault", vault), script=SCRIPT, **more)


def _ended_at_once(ran: Ran, code: int, error: str, *words: str) -> None:
    assert (ran.causes, ran.actions, ran.code) == (["refused"], ["stop"], code)
    assert f"rank 0 raised {error} before its first step" in ran.err
    assert "starting it again changes nothing: the message says what to change" in ran.err
    for word in words:
        assert word in ran.err


def test_a_vault_that_cannot_be_written_to(tmp_path: Path) -> None:
    """A read-only mount stays one."""
    train(str(tmp_path / "vault"), tmp_path / "before", 100)
    with read_only_at(tmp_path / "shown", tmp_path / "vault") as shown:
        ran = _run(tmp_path, str(shown))
    hint = "Check the permissions and mount of the vault's folder; then start again"
    _ended_at_once(ran, 3, "VaultDeniedError", "read-only file system", hint)


def test_a_vault_where_a_file_is(tmp_path: Path) -> None:
    """A mistyped address names no folder the next time either."""
    (tmp_path / "vault").touch()
    ran = _run(tmp_path, str(tmp_path / "vault"))
    _ended_at_once(ran, 3, "VaultDeniedError", "is a file", "Name a folder; then start again")


@pytest.mark.slow
def test_wrong_credentials_and_no_such_bucket(tmp_path: Path, s3_uri: str, s3_server: SeaweedServer) -> None:
    """Who isn't let in, or names a bucket that isn't there, is told which it is."""
    denied = _run(tmp_path, s3_uri, AWS_SECRET_ACCESS_KEY="wrong" * 8)
    _ended_at_once(denied, 3, "VaultDeniedError", "AWS_SECRET_ACCESS_KEY")
    (tmp_path / "b").mkdir()
    absent = _run(tmp_path / "b", "s3://no-such-bucket-here/run")
    _ended_at_once(absent, 3, "VaultDeniedError", "the bucket doesn't exist", "Create it, or check its name")


def test_a_key_of_another_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What isn't signed by this key never will be."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    ours, theirs = (tmp_path / name for name in ("ours.pem", "theirs.pem"))
    for path in (ours, theirs):
        key = Ed25519PrivateKey.generate()
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv(SIGNING, str(ours))
    train(str(tmp_path / "vault"), tmp_path / "before", 100)
    ran = _run(tmp_path, str(tmp_path / "vault"), **{SIGNING: str(theirs)})
    _ended_at_once(ran, 1, "SignatureError", "set the key of this vault, or name a vault of this key")
