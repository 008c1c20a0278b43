"""`vl pull` and `vl pin`: copy out, verified and resumable; keep, whatever retention says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vault.vaults import content, tree
from tests.vault.vaults import train as train_on

from .conftest import vl


def test_pull_copies_out_what_the_trainer_wrote(trained: Path, tmp_path: Path) -> None:
    """The folder that appears is the checkpoint, byte for byte, under its own name or the one that is given."""
    source = content(next(trained.glob("data/*/checkpoint-40")))
    expected = {path: data for path, data in source.items() if not path.startswith(".vault")}
    done = vl("pull", f"{trained}@40", cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done.err
    assert content(tmp_path / "checkpoint-40") == expected
    assert done.out.startswith("step 40: checkpoint-40, verified, 11 files")
    assert vl("pull", f"{trained}@40", str(tmp_path / "deep/er/out")).code == 0
    assert content(tmp_path / "deep/er/out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-40", "deep"]


def test_pull_leaves_alone_what_is_there(trained: Path, tmp_path: Path) -> None:
    """The same checkpoint isn't fetched again; anything else in its place is never overwritten."""
    target = tmp_path / "out"
    assert vl("pull", f"{trained}@40", str(target)).code == 0
    again = vl("pull", f"{trained}@40", str(target), "--json").json()
    assert again["fetched"] == 0
    before = tree(target)
    other = vl("pull", f"{trained}@60", str(target))
    assert (other.code, "else than this checkpoint" in other.err) == (2, True)
    assert tree(target) == before


def test_pull_of_a_damaged_checkpoint_makes_no_folder(vault: Path, tmp_path: Path) -> None:
    """A flipped bit ends the pull with 1 and the file's name, and the folder never appears."""
    path = next(vault.glob("data/*/checkpoint-40")) / "optimizer.pt"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    done = vl("pull", f"{vault}@40", str(tmp_path / "out"))
    assert (done.code, "optimizer.pt" in done.err) == (1, True)
    assert not (tmp_path / "out").exists()


def test_a_killed_pull_goes_on_where_it_was(tmp_path: Path, s3_server, s3_env, s3_uri) -> None:
    """SIGKILL in the middle of a file from a real S3 server: the next pull fetches only the rest, and it verifies."""
    from vaultlayer_hf.stores import open_store
    from vaultlayer_hf.vault.log.log import Log, Writer

    store = open_store(s3_uri)
    writer, _ = Writer.claim(store, Log(store))
    commit = commit_big(store, writer, tmp_path)
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "vaultlayer_hf.cli", "pull", f"{s3_uri}@7", str(target)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.stat().st_size for path in tmp_path.glob(".out.*.part/*.bin")) > 16 * 2**20:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too fast to be killed"
    there = sum(path.stat().st_size for path in tmp_path.glob(".out.*.part/*.bin"))
    assert not target.exists()
    assert 16 * 2**20 <= there < commit.bytes
    done = vl("pull", f"{s3_uri}@7", str(target), "--json")
    assert done.code == 0, done.err
    assert done.json()["fetched"] == commit.bytes - there
    assert (target / "weights.bin").read_bytes() == (tmp_path / "checkpoint-7/weights.bin").read_bytes()
    assert not list(tmp_path.glob(".out*"))


def commit_big(store, writer, work: Path):
    """Commit a checkpoint of one file of 160 MB."""
    from tests.vault.tools import snapshot_of, transfer_of
    from vaultlayer_hf.vault.upload.sending import commit, send, write_part

    folder = work / "checkpoint-7"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(2**20) * 160)
    snapshot = snapshot_of(writer, folder, work / "snapshots")
    transfer = transfer_of(writer, snapshot)
    send(store, snapshot, transfer)
    write_part(store, snapshot, transfer, 0)
    return commit(store, writer, snapshot.manifest, transfer, resumed_from=None)


def test_pin_keeps_and_remove_lets_go(tmp_path: Path) -> None:
    """A pinned checkpoint outlives a run that keeps one; let go, it is retired by the next commit."""
    vault = str(tmp_path / "vault")
    train_on(vault, tmp_path / "one", 10, 20, keep_last=None)
    done = vl("pin", f"{vault}@10")
    assert (done.code, done.out) == (0, "step 10 (log entry 2): pinned\n")
    assert vl("pin", f"{vault}@10").out.endswith("pinned already\n")
    train_on(vault, tmp_path / "one", 30, 40, keep_last=1)
    listed = vl("ls", vault, "--json").json()["checkpoints"]
    assert (listed[0]["step"], listed[0]["state"]) == (10, "pinned")
    assert vl("verify", vault).code == 0
    assert vl("pin", f"{vault}@10", "--remove").out == "step 10 (log entry 2): no longer pinned\n"
    train_on(vault, tmp_path / "one", 50, keep_last=1)
    assert 10 not in [item["step"] for item in vl("ls", vault, "--json").json()["checkpoints"]]


def test_pin_needs_write_permission(s3_server, s3_env, s3_uri, tmp_path: Path) -> None:
    """A reader's credentials can show and pull, and are told with 3 that they can't pin."""
    train_on(s3_uri, tmp_path / "one", 10)
    reader = {
        "AWS_ACCESS_KEY_ID": s3_server.reader_access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.reader_secret_key,
    }
    assert vl("show", s3_uri, **reader).code == 0
    assert vl("pull", s3_uri, str(tmp_path / "out"), **reader).code == 0
    done = vl("pin", s3_uri, **reader)
    assert done.code == 3, done.err
    assert vl("ls", s3_uri, "--json").json()["checkpoints"][0]["state"] == "newest"


@pytest.mark.parametrize("command", ["pull", "show"])
def test_python_does_the_same(trained: Path, tmp_path: Path, command: str) -> None:
    """What the commands do is there from Python."""
    from vaultlayer_hf import open_vault

    with open_vault(str(trained)) as vault:
        commit = vault.checkpoint(40)
        if command == "pull":
            counts: list[int] = []
            assert vault.pull(commit, tmp_path / "out", counts.append) == commit.bytes == sum(counts)
            assert vault.pull(commit, tmp_path / "out") == 0
        else:
            assert vault.read(commit, "config.json") == (trained / commit.folder / "config.json").read_bytes()
            assert vault.read(commit, "absent") is None
            assert vault.glance(commit) == []
