"""`vl doctor`: real stores, sound and unsound; each finding with its fix, and nothing left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.security.test_signature import pem, public_pem
from tests.vault.vaults import train, tree
from vaultlayer_hf.cli.checks import (
    Finding,
    Measurements,
    check_apart,
    check_disk,
    check_store,
    judge_clock,
)
from vaultlayer_hf.cli.common import ExitCode
from vaultlayer_hf.cli.doctor import checkpoint_size
from vaultlayer_hf.cli.prediction import judge, judge_copy, predict
from vaultlayer_hf.stores.uri import parse_vault

from .conftest import vl

NAMES = [
    "libraries", "credentials", "log", "create-if-absent", "clock", "delete", "bandwidth", "disk", "prediction",
    "async_save",
]  # fmt: skip


def test_a_sound_folder(vault: Path, tmp_path: Path) -> None:
    """All is well on a folder vault, the vault is as before, and the prediction follows from what was measured."""
    before = tree(vault)
    done = vl("doctor", str(vault), "--model", "100MB", "--output-dir", str(tmp_path), "--json")
    assert done.code == 0, done.err
    found = done.json()
    one_disk = next(item for item in found["findings"] if item["name"] == "one disk")
    assert one_disk["state"] == "warning"
    assert "the vault and output_dir lie on one disk" in one_disk["text"]
    others = [item for item in found["findings"] if item is not one_disk]
    assert [item["name"] for item in others] == NAMES
    assert {item["state"] for item in others} == {"ok"}
    assert found["measured"]["create_if_absent"] is True
    assert found["predicted"]["restore"] == pytest.approx(1e8 / found["measured"]["download_rate"])
    assert tree(vault) == before


def test_whose_checkpoint_is_predicted_for_is_said(vault: Path, tmp_path: Path) -> None:
    """Without --model it is the vault's newest checkpoint; where there is none, the assumed model is named as such."""
    newest = vl("ls", str(vault), "--json").json()["checkpoints"][-1]["bytes"]
    found = vl("doctor", str(vault), "--output-dir", str(tmp_path), "--json").json()
    assert found["predicted"]["checkpoint"] == found["measured"]["checkpoint"] == newest
    assert "(as the newest here)" in next(
        one["text"] for one in found["findings"] if one["name"] == "prediction"
    )
    assert "which is assumed: --model names yours" in vl("doctor", str(tmp_path / "new"), cwd=tmp_path).out


def test_a_vault_on_another_disk(tmp_path: Path) -> None:
    """Only a folder on the disk that the training writes to is lost with it."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    assert list(check_apart(parse_vault(shared / "none/vault"), tmp_path)) == []
    assert list(check_apart(parse_vault("s3://bucket/vault"), tmp_path)) == []
    assert [item.state for item in check_apart(parse_vault(tmp_path / "none/vault"), tmp_path)] == ["warning"]


def test_a_vault_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    """Trying out a folder that doesn't exist leaves none behind."""
    done = vl("doctor", str(tmp_path / "deep/er/vault"), "--model", "1MB", "--output-dir", str(tmp_path))
    assert done.code == 0, done.out + done.err
    assert "no run has claimed this vault yet" in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_real_s3_server(s3_server, s3_env, s3_uri, tmp_path: Path) -> None:
    """On S3 an administrator's credentials pass; a reader's are bad with 3, and the fix is named."""
    done = vl("doctor", s3_uri, "--model", "1MB", "--output-dir", str(tmp_path), "--json")
    assert done.code == 0, done.out + done.err
    assert [item["name"] for item in done.json()["findings"]] == NAMES
    from vaultlayer_hf.stores import open_store

    assert list(open_store(s3_uri).list("")) == []
    reader = {
        "AWS_ACCESS_KEY_ID": s3_server.reader_access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.reader_secret_key,
    }
    denied = vl("doctor", s3_uri, "--model", "1MB", "--output-dir", str(tmp_path), **reader)
    assert denied.code == 3
    bad = next(line for line in denied.out.splitlines() if line.startswith("BAD"))
    assert "store" in bad
    assert denied.out.splitlines()[denied.out.splitlines().index(bad) + 1].strip().startswith("fix: ")
    assert s3_server.reader_secret_key not in denied.out


def test_nobody_answers(no_aws, monkeypatch) -> None:
    """A server that isn't there is one bad finding that ends the command with 3, once patience is over."""
    with socket.socket() as held:  # bound and not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "us-east-1")
        found = list(check_store(parse_vault("s3://bucket/run"), 0.1, Measurements()))
    assert [(item.name, item.state) for item in found] == [("store", "bad")], (
        "nobody has seen whether the credentials are good"
    )
    assert (found[-1].code, bool(found[-1].fix)) == (ExitCode.STORE, True)


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    """A model of which two checkpoints don't fit is bad, before a training finds out."""
    done = vl("doctor", str(tmp_path / "vault"), "--model", "900T", "--output-dir", str(tmp_path))
    assert done.code == 1
    assert "two checkpoints need" in done.out


def test_a_disk_too_small_for_a_guess(tmp_path: Path) -> None:
    """Where nobody named the model, too small a disk for the assumed one is a warning and ends no startup script."""
    (disk, *_) = check_disk(tmp_path, 10**18, Measurements(), guessed=True)
    assert (disk.state, disk.code) == ("warning", ExitCode.OK)
    assert "--model" in disk.fix


@pytest.mark.parametrize(("offset", "state"), [(5, "ok"), (-59, "ok"), (61, "warning"), (-901, "bad")])
def test_clocks_that_differ(offset: float, state: str) -> None:
    """A minute is worth a word, a quarter of an hour is what S3 refuses."""
    assert judge_clock(offset).state == state


def test_what_is_predicted() -> None:
    """By hand: 10 GB at 100 MB/s up and 1 GB/s of disk is 110 s to the commit; saving each minute is too often."""
    measured = Measurements(upload_rate=1e8, download_rate=2e8, latency=0.0, disk_rate=1e9, links=True)
    found = predict(10**10, 1800, measured)
    assert found is not None
    assert (found.upload, found.at_risk, found.restore, found.stall) == (110, 1910, 50, 0.005)
    assert judge(found, 1800) == Finding("prediction", "ok", judge(found, 1800).text)
    assert (
        "for the 10 s in which its files are written, and for 5 ms more with a vault"
        in judge(found, 1800).text
    )
    often = judge(predict(10**10, 60, measured), 60)
    assert (often.state, "every 1.83 min" in often.fix) == ("warning", True)
    copied = predict(
        10**10, 1800, Measurements(upload_rate=1e8, download_rate=2e8, disk_rate=1e9, links=False)
    )
    assert copied.stall == 10
    assert predict(1, 1, Measurements()) is None


def test_a_disk_without_links(tmp_path: Path, monkeypatch) -> None:
    """Where a file can't be linked, each save is a copy, and that is said."""
    from vaultlayer_hf.base import files

    monkeypatch.setattr(files, "link", lambda source, target: False)
    found = list(check_disk(tmp_path, None, Measurements()))
    assert [(item.name, item.state) for item in found] == [("disk", "ok"), ("snapshots", "warning")]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7B", 84 * 10**9),
        ("350M", 42 * 10**8),
        ("84GB", 84 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("7", None),
        ("x", None),
    ],
)
def test_sizes_of_models(text: str, size: int | None) -> None:
    """7B is parameters, of 12 bytes each; GB is bytes."""
    assert checkpoint_size(text) == size


def test_no_vault_is_a_usage_error() -> None:
    """Without a vault, and with a size that means nothing, the command ends with 2."""
    assert vl("doctor", VAULTLAYER_VAULT="").code == 2
    assert vl("doctor", "/tmp/x", "--model", "big").code == 2
    assert vl("doctor", "/tmp/x", "--save-every", "often").code == 2


@pytest.mark.parametrize(
    ("free", "interval", "asked", "state", "words"),
    [
        (2 * 10**9, 1800, True, "ok", "can be written beside"),
        (None, 1800, False, "ok", "async_save is off"),
        (10**9, 1800, True, "warning", "is too much"),
        (10**9, 1800, False, "ok", "is too much"),
        (2 * 10**9, 5, True, "warning", "the next save comes first"),
    ],
)
def test_whether_saves_will_overlap(
    free: int | None, interval: float, asked: bool, state: str, words: str
) -> None:
    """A copy that doesn't fit into what is free, or isn't written by the next save, is said."""
    measured = Measurements(upload_rate=1e8, download_rate=1e8, disk_rate=1e8, links=True)
    found = predict(10**9, interval, measured)
    assert found is not None
    finding = judge_copy(found, interval, free, asked=asked)
    assert finding.state == state
    assert words in finding.text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VAULTLAYER_KEEP_LAST", "-1", "keep_last=-1: use a number above 0"),
        ("VAULTLAYER_SAVE_EVRY", "5min", "did you mean VAULTLAYER_SAVE_EVERY?"),
        ("VAULTLAYER_FORK", "s4://bucket/run", "did you mean s3://bucket/run?"),
    ],
)
def test_a_variable_that_a_start_refuses_is_found_ahead_of_it(
    vault: Path, name: str, value: str, words: str
) -> None:
    """A setting that can't be used, and a misspelt one, are bad here already, and the command ends with 2."""
    done = vl("doctor", str(vault), "--json", **{name: value})
    (found,) = [item for item in done.json()["findings"] if item["name"] == "settings"]
    assert (done.code, found["state"]) == (2, "bad")
    assert words in found["text"]


def test_a_key_that_isnt_the_vaults_is_found_ahead_of_the_run(
    vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with it would be refused, so doctor names it, too."""
    done = vl("doctor", str(vault), VAULTLAYER_ENCRYPTION_KEY="11" * 32)
    assert (done.code, "BAD     store:" in done.out) == (2, True), done.out
    assert "isn't encrypted, and VAULTLAYER_ENCRYPTION_KEY is set: unset it for this vault" in done.out
    key = Ed25519PrivateKey.generate()
    signed = str(tmp_path / "signed")
    with monkeypatch.context() as patched:
        patched.setenv("VAULTLAYER_SIGNING_KEY", pem(key))
        train(signed, tmp_path / "out", 2)
    assert f"{signed}: its entries are signed: set VAULTLAYER_SIGNING_KEY" in vl("doctor", signed).out
    reader = vl("doctor", signed, VAULTLAYER_VERIFY_KEY=public_pem(key))
    assert (reader.code, "writing to one needs VAULTLAYER_SIGNING_KEY" in reader.out) == (2, True), reader.out
    assert vl("doctor", signed, VAULTLAYER_SIGNING_KEY=pem(key)).code == 0
