"""Pull: a checkpoint appears whole and verified, or not at all, however often the pull before was stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tests.vault.tools import claim, commit_step, content_of, flip, memory_store
from vaultlayer_hf.errors import CorruptError, SettingsError, StoreUnavailableError, VaultLayerError
from vaultlayer_hf.testing.faults import Fault, FaultStore, Operation
from vaultlayer_hf.vault.reader.pull import pull


@pytest.fixture
def stocked(tmp_path: Path):
    """A store with one committed checkpoint, the commit, and its content."""
    store = memory_store()
    commit = commit_step(store, claim(store), tmp_path / "work", 10)
    folder = tmp_path / "work" / "t1-s1" / "checkpoint-10"
    return store, commit, content_of(folder)


def part_of(target: Path) -> Path:
    """Return the folder in which a pull collects what has come."""
    (path,) = target.parent.glob(f".{target.name}.*.part")
    return path


def stopped(store, commit, target: Path) -> Path:
    """Pull through a store that fails at the second ranged read; return the folder of what has come."""
    reads: list[Operation] = []

    def plan(operation: Operation) -> Fault | None:
        if operation.name == "read_range":
            reads.append(operation)
            if len(reads) == 2:
                return Fault.refused()
        return None

    with pytest.raises(StoreUnavailableError):
        pull(FaultStore(store, plan), commit, target)
    assert not target.exists()
    return part_of(target)


def test_every_read_can_fail(stocked, tmp_path: Path) -> None:
    """Stopped at any read, the folder isn't there; the next pull ends with the right content and no remains."""
    store, commit, content = stocked
    probe = FaultStore(store)
    pull(probe, commit, tmp_path / "probe")
    count = len(probe.operations)
    assert count >= 4
    for number in range(1, count + 1):
        target = tmp_path / f"out-{number}"
        with pytest.raises(StoreUnavailableError):
            pull(FaultStore(store, {number: Fault.refused()}), commit, target)
        assert not target.exists()
        pull(store, commit, target)
        assert content_of(target) == content
        assert list(tmp_path.glob(".out*")) == []


def test_what_is_there_is_not_fetched_again(stocked, tmp_path: Path) -> None:
    """A file that came half goes on from its middle; what lies there and doesn't belong is removed."""
    store, commit, content = stocked
    target = tmp_path / "out"
    part = stopped(store, commit, target)
    whole = content["model.safetensors"]
    (part / "model.safetensors").write_bytes(whole[:1000])
    (part / "foreign").write_bytes(b"x")
    counts: list[int] = []
    there = sum(path.stat().st_size for path in part.rglob("*") if path.is_file()) - 1
    assert pull(store, commit, target, counts.append) == commit.bytes - there
    assert sum(counts) == commit.bytes
    assert content_of(target) == content


@pytest.mark.parametrize("rot", ["bit", "longer"])
def test_what_went_bad_on_the_disk_is_fetched_anew(stocked, tmp_path: Path, rot: str) -> None:
    """Half a file that rotted on this disk, or grew, isn't blamed on the vault."""
    store, commit, content = stocked
    target = tmp_path / "out"
    part = stopped(store, commit, target)
    whole = content["model.safetensors"]
    (part / "model.safetensors").write_bytes(b"\0" * 1000 if rot == "bit" else whole + b"more")
    pull(store, commit, target)
    assert content_of(target) == content


@pytest.mark.parametrize("damage", ["flipped", "missing", "short"])
def test_damage_in_the_vault_is_named(stocked, tmp_path: Path, damage: str) -> None:
    """The file is named, the folder never appears, and mended, the vault is pulled from where it was."""
    store, commit, content = stocked
    key = f"{commit.folder}/model.safetensors"
    if damage == "flipped":
        flip(store, key)
    elif damage == "missing":
        store.delete([key])
    else:
        store.write(key, content["model.safetensors"][:-1])
    target = tmp_path / "out"
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        pull(store, commit, target)
    assert not target.exists()
    store.write(key, content["model.safetensors"])
    pull(store, commit, target)
    assert content_of(target) == content


def test_two_at_once(stocked, tmp_path: Path) -> None:
    """A second pull to the same place is told to wait, and takes nothing away from the first."""
    store, commit, content = stocked
    target = tmp_path / "out"
    part = stopped(store, commit, target)
    descriptor = os.open(part, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    before = content_of(part)
    with pytest.raises(VaultLayerError, match="another pull"):
        pull(store, commit, target)
    assert content_of(part) == before
    os.close(descriptor)
    pull(store, commit, target)
    assert content_of(target) == content


def test_a_target_that_is_taken(stocked, tmp_path: Path) -> None:
    """A file, an empty folder, a folder with one file more or one that differs: refused, and left as it is."""
    store, commit, content = stocked
    pull(store, commit, tmp_path / "good")
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    for name in ("more", "other"):
        shutil.copytree(tmp_path / "good", tmp_path / name)
    (tmp_path / "more" / "notes.txt").write_bytes(b"mine")
    (tmp_path / "other" / "config.json").write_bytes(b"mine".ljust(len(content["config.json"])))
    for name in ("file", "empty", "more", "other"):
        with pytest.raises(SettingsError, match="something else than this checkpoint"):
            pull(store, commit, tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert (tmp_path / "more" / "notes.txt").read_bytes() == b"mine"


def test_no_space(stocked, tmp_path: Path, monkeypatch) -> None:
    """Where it doesn't fit, that is said before anything is fetched."""
    store, commit, _ = stocked
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    watched = FaultStore(store)
    with pytest.raises(VaultLayerError, match="free some space"):
        pull(watched, commit, tmp_path / "out")
    assert [operation.name for operation in watched.operations] == ["read"]
