"""Restore: verified or not at all, inside the target folder, in bounded memory."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.vault.tools import claim, commit_step, content_of, flip, memory_store, write_checkpoint
from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import digest_file
from vaultlayer_hf.errors import (
    CorruptError,
    ResumeError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.testing.faults import Fault, FaultStore
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.manifest import FileEntry, Manifest, read_manifest
from vaultlayer_hf.vault.reader.check import CHUNK, check
from vaultlayer_hf.vault.restore.restore import restore
from vaultlayer_hf.vault.workspace import workspace


@pytest.fixture(params=["memory", "folder"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Commit, Manifest, dict[str, bytes]]:
    """A vault with one commit: the store, the commit, its manifest and its content."""
    store: Store = memory_store() if request.param == "memory" else FolderStore(tmp_path / "vault")
    commit = commit_step(store, claim(store), tmp_path / "old", 500)
    content = content_of(tmp_path / "old" / "t1-s1" / "checkpoint-500")
    return store, commit, read_manifest(store, commit), content


@pytest.fixture
def final(tmp_path: Path) -> Path:
    """Where the checkpoint is to appear."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "checkpoint-500"


def leftovers(final: Path) -> list[Path]:
    """Return what a restore left beside its target."""
    folder = workspace(final.parent)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_a_restored_checkpoint_is_what_was_committed(vault: Any, final: Path) -> None:
    """Every file comes back byte for byte, nothing else is there, and nothing is left beside."""
    store, commit, manifest, content = vault
    fetched = restore(store, commit.folder, manifest, final)
    assert content_of(final) == content
    assert fetched == manifest.bytes
    assert leftovers(final) == []


@pytest.mark.parametrize("damage", ["flipped", "empty", "cut", "zeroed tail", "deleted", "swapped", "longer"])
def test_damage_in_the_vault_is_refused(vault: Any, final: Path, damage: str) -> None:
    """A file that isn't what the manifest says is refused, and what was at the target stays as it was."""
    store, commit, manifest, content = vault
    key = f"{commit.folder}/model.safetensors"
    data = content["model.safetensors"]
    final.mkdir()
    (final / "mine").write_bytes(b"before")
    if damage == "flipped":
        flip(store, key)
    elif damage == "deleted":
        store.delete([key])
    elif damage == "swapped":
        store.write(key, content["config.json"])
        store.write(f"{commit.folder}/config.json", data)
    elif damage == "longer":  # only what the manifest lists is read, and that is right
        store.write(key, data + b"more")
        restore(store, commit.folder, manifest, final)
        assert content_of(final) == content
        return
    else:
        store.write(key, {"empty": b"", "cut": data[:-1], "zeroed tail": data[:-64] + b"\0" * 64}[damage])
    with pytest.raises(CorruptError, match=r"model\.safetensors|config\.json"):
        restore(store, commit.folder, manifest, final)
    assert content_of(final) == {"mine": b"before"}
    assert leftovers(final) == []
    assert check(store, commit.folder, list(manifest.files)) != []


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("read_range", "k", "down"), StoreDeniedError("read_range", "k", "expired")],
)
def test_trouble_of_the_store_is_not_corruption(vault: Any, final: Path, error: StoreError) -> None:
    """A store that can't be reached or refuses says nothing of the checkpoint: no walking back because of it."""
    store, commit, manifest, _ = vault
    faulty = FaultStore(
        store, lambda operation: Fault.refused(error) if operation.name == "read_range" else None
    )
    with pytest.raises(type(error)):
        restore(faulty, commit.folder, manifest, final)
    assert not final.exists()
    assert leftovers(final) == []
    with pytest.raises(type(error)):
        check(faulty, commit.folder, list(manifest.files))


def test_local_files_are_used_instead_of_a_download(vault: Any, final: Path) -> None:
    """What lies at the target with the right digest isn't fetched; what differs is, and what is extra goes."""
    store, commit, manifest, content = vault
    write_checkpoint(final.parent, 500)
    (final / "config.json").write_bytes(b'{"model_type": "TEST"}')
    (final / "extra.bin").write_bytes(b"x")
    (final / "empty").mkdir()
    counting = FaultStore(store)
    fetched = restore(counting, commit.folder, manifest, final)
    assert fetched == len(content["config.json"])
    assert {operation.key for operation in counting.operations} == {f"{commit.folder}/config.json"}
    assert content_of(final) == content
    assert not (final / "empty").exists()


@pytest.mark.parametrize("other", ["", "a file", "a folder", "a link", "changed"])
def test_a_folder_that_is_the_checkpoint_stays(vault: Any, final: Path, tmp_path: Path, other: str) -> None:
    """Where every file lies at the target, and nothing else, it isn't replaced; it is older than what comes then."""
    store, commit, manifest, content = vault
    write_checkpoint(final.parent, 500)
    before = final.stat()
    if other == "a file":
        (final / "extra.bin").write_bytes(b"x")
    elif other == "a folder":
        (final / "empty").mkdir()
    elif other == "a link":
        (final / "link").symlink_to(tmp_path)
    localise = partial(_write_config, b"{}") if other == "changed" else None
    assert restore(store, commit.folder, manifest, final, finish=localise) == 0
    assert content_of(final) == content | ({"config.json": b"{}"} if other == "changed" else {})
    assert {path.name for path in final.iterdir()} == {path.partition("/")[0] for path in content}
    assert (final.stat().st_ino == before.st_ino) == (not other)
    assert final.stat().st_mtime < before.st_mtime - 30
    assert leftovers(final) == []


def _write_config(data: bytes, folder: Path) -> None:
    files.write_file(folder / "config.json", data)


def test_a_local_file_that_lies_is_fetched(vault: Any, final: Path) -> None:
    """A local file of the right size and name with other content is never used."""
    store, commit, manifest, content = vault
    write_checkpoint(final.parent, 500)
    (final / "model.safetensors").write_bytes(b"\0" * len(content["model.safetensors"]))
    restore(store, commit.folder, manifest, final)
    assert content_of(final) == content


def test_a_local_file_that_changes_while_it_is_taken_is_not_believed(
    vault: Any, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put in place is what was digested: a file replaced in between is noticed."""
    store, commit, manifest, content = vault
    write_checkpoint(final.parent, 500)
    real = files.link

    def replaced_first(source: Path, target: Path) -> bool:
        if source.name == "model.safetensors":  # the Trainer of another process saves this step again
            source.unlink()
            source.write_bytes(b"\0" * len(content["model.safetensors"]))
        return real(source, target)

    monkeypatch.setattr(files, "link", replaced_first)
    restore(store, commit.folder, manifest, final)
    assert content_of(final) == content


def test_a_copy_is_made_where_links_cannot(vault: Any, final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local files are used on file systems without hard links, too."""
    store, commit, manifest, content = vault
    write_checkpoint(final.parent, 500)
    monkeypatch.setattr(files, "link", lambda source, target: False)
    assert restore(store, commit.folder, manifest, final) == 0
    assert content_of(final) == content


@pytest.mark.parametrize("where", ["the folder", "a folder inside", "a file inside"])
def test_links_at_the_target_lead_nowhere(vault: Any, final: Path, tmp_path: Path, where: str) -> None:
    """A symbolic link at the target or inside is replaced, and what it leads to is neither changed nor shared."""
    store, commit, manifest, content = vault
    elsewhere = write_checkpoint(tmp_path / "elsewhere", 500)
    (elsewhere / "precious").write_bytes(b"precious")
    before = content_of(elsewhere)
    if where == "the folder":
        final.symlink_to(elsewhere)
    elif where == "a folder inside":
        final.mkdir()
        (final / "sub").symlink_to(elsewhere / "sub")
    else:
        final.mkdir()
        (final / "config.json").symlink_to(elsewhere / "config.json")
    restore(store, commit.folder, manifest, final)
    assert not any(path.is_symlink() for path in (final, *final.rglob("*")))
    assert content_of(final) == content
    assert content_of(elsewhere) == before
    for name in content:
        assert not os.path.samefile(final / name, elsewhere / name)


def test_a_file_at_the_target_is_replaced(vault: Any, final: Path) -> None:
    """A file that has the checkpoint's name makes way."""
    store, commit, manifest, content = vault
    final.write_bytes(b"no folder")
    restore(store, commit.folder, manifest, final)
    assert content_of(final) == content


def test_what_finishing_changes_appears_at_once(vault: Any, final: Path) -> None:
    """Changes for the new host are made before the checkpoint appears, and their failure leaves nothing."""
    store, commit, manifest, content = vault

    def finish(staging: Path) -> None:
        assert not final.exists()
        (staging / "config.json").write_bytes(b"local")

    restore(store, commit.folder, manifest, final, finish=finish)
    assert content_of(final) == {**content, "config.json": b"local"}

    def fail(staging: Path) -> None:
        raise ValueError("no")

    before = content_of(final)
    with pytest.raises(ValueError, match="no"):
        restore(store, commit.folder, manifest, final, finish=fail)
    assert content_of(final) == before
    assert leftovers(final) == []


def test_a_failed_last_rename_puts_back_what_was_there(
    vault: Any, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at the very last step leaves the folder that was at the target."""
    store, commit, manifest, _ = vault
    final.mkdir()
    (final / "mine").write_bytes(b"before")
    real = files.rename

    def fail(source: Path, target: Path) -> None:
        if source.name.startswith("restore-"):
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(files, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        restore(store, commit.folder, manifest, final)
    assert content_of(final) == {"mine": b"before"}


def test_a_restored_folder_looks_older_than_what_comes_next(vault: Any, final: Path) -> None:
    """The Trainer rotates by mtime: a restored checkpoint is older than any that is written after it."""
    store, commit, manifest, _ = vault
    restore(store, commit.folder, manifest, final)
    assert final.stat().st_mtime < time.time() - 30


def test_no_space_is_said_before_anything_is_fetched(tmp_path: Path, final: Path) -> None:
    """A checkpoint that is larger than the disk is refused with the sizes and what to do."""
    store = FolderStore(tmp_path / "vault")
    commit = commit_step(store, claim(store), tmp_path, 500)
    manifest = read_manifest(store, commit)
    os.truncate(tmp_path / "vault" / commit.folder / manifest.files[0].path, 2**42)  # sparse: takes no space
    huge = replace(manifest, files=(replace(manifest.files[0], size=2**42), *manifest.files[1:]))
    counting = FaultStore(store)
    with pytest.raises(ResumeError, match="free some space"):
        restore(counting, commit.folder, huge, final)
    assert {operation.name for operation in counting.operations} == {"list"}
    assert not final.exists()


def test_a_full_disk_leaves_nothing(vault: Any, final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle ends in an error, with nothing at the target and nothing beside it."""
    store, commit, manifest, _ = vault

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        restore(store, commit.folder, manifest, final)
    monkeypatch.undo()
    assert not final.exists()
    assert leftovers(final) == []


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    """Restoring a file holds a few chunks in memory, not the file."""
    store = FolderStore(tmp_path / "vault")
    path = store.root / "data/1/checkpoint-500/big"
    path.parent.mkdir(parents=True)
    size = 20 * CHUNK + 17
    with open(path, "wb") as file:
        file.truncate(size)
    digest, _ = digest_file(path)
    manifest = Manifest(step=500, token=1, seq=1, files=(FileEntry("big", size, digest),))
    seen: list[int] = []
    tracemalloc.start()
    restore(store, "data/1/checkpoint-500", manifest, tmp_path / "out", concurrency=2, on_bytes=seen.append)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(seen) == size == (tmp_path / "out" / "big").stat().st_size
    assert peak < 7 * CHUNK


def test_a_restore_that_is_cut_short_is_repeated_from_nothing(
    vault: Any, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed restore left is never taken for a checkpoint, and the next one succeeds beside it."""
    store, commit, manifest, content = vault
    real: Callable[[Path], None] = files.remove_tree
    monkeypatch.setattr(files, "remove_tree", lambda path: None)  # a killed process cleans nothing up

    def killed(staging: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(store, commit.folder, manifest, final, finish=killed)
    monkeypatch.setattr(files, "remove_tree", real)
    assert not final.exists()
    assert leftovers(final) != []
    restore(store, commit.folder, manifest, final)
    assert content_of(final) == content
