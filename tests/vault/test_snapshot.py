"""Snapshots: frozen against rotation and rewriting, found again only if sealed, or whole on the same boot."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.vault.tools import content_of, memory_store, write_checkpoint
from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import KnownDigest, digest_bytes
from vaultlayer_hf.errors import CorruptError, StoreError, VaultLayerError
from vaultlayer_hf.vault import written
from vaultlayer_hf.vault.adoptable import find_complete
from vaultlayer_hf.vault.manifest import Manifest, decode_manifest, encode_manifest
from vaultlayer_hf.vault.snapshot import (
    COPY_BELOW,
    Snapshot,
    SnapshotChangedError,
    check_unchanged,
    hand_over_snapshot,
    list_files,
    local_folder,
    note_whole,
    seal_snapshot,
    take_snapshot,
    verify_snapshot,
)
from vaultlayer_hf.vault.upload.sending import Transfer, send

BIG = COPY_BELOW + 5
TOKEN = 7


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint folder with one file that gets linked and two that get copied."""
    return write_checkpoint(tmp_path / "out", 500, BIG)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder of one writer's snapshots."""
    return local_folder(tmp_path / "out", "v1", TOKEN)


def frozen(source: Path, target: Path, seq: int = 1) -> Snapshot:
    """Take a snapshot."""
    return take_snapshot(source, target, seq, Manifest(step=500, token=TOKEN, seq=seq, files=()))


def test_a_digest_that_is_known_is_believed_as_long_as_the_file_looks_as_it_did(
    source: Path, target: Path
) -> None:
    """A file that was digested as it was written isn't read for the seal; one that was touched since is."""
    names = [name for name in list_files(source) if (source / name).stat().st_size == BIG]
    looks = [(source / name).stat() for name in names]
    known = {
        name: KnownDigest(look.st_size, look.st_mtime_ns, digest_bytes(b"as it was written"))
        for name, look in zip(names, looks, strict=True)
    }
    assert known
    manifest = Manifest(step=500, token=TOKEN, seq=1, files=())
    sealed = seal_snapshot(take_snapshot(source, target, 1, manifest, known))
    assert {one.digest for one in sealed.manifest.files if one.path in names} == {
        digest_bytes(b"as it was written")
    }
    for name, look in zip(names, looks, strict=True):
        os.utime(source / name, ns=(look.st_atime_ns, look.st_mtime_ns + 1))
    again = seal_snapshot(take_snapshot(source, target, 2, replace(manifest, seq=2), known))
    for name in names:
        found = next(one for one in again.manifest.files if one.path == name)
        assert found.digest == digest_bytes((source / name).read_bytes())


def test_a_snapshot_holds_what_the_folder_held(source: Path, target: Path) -> None:
    """A snapshot has every file of the folder with its content; its manifest lists them all with their sizes."""
    expected = content_of(source)
    snapshot = seal_snapshot(frozen(source, target))
    assert content_of(snapshot.files) == expected
    assert {entry.path: entry.size for entry in snapshot.manifest.files} == {
        name: len(data) for name, data in expected.items()
    }
    assert verify_snapshot(snapshot).manifest == snapshot.manifest


def test_large_files_are_linked_and_small_ones_copied(source: Path, target: Path) -> None:
    """A large file shares its content with the Trainer's, a small one, which gets rewritten, doesn't."""
    snapshot = frozen(source, target)
    assert snapshot.linked
    same = {name: os.path.samefile(source / name, snapshot.files / name) for name in content_of(source)}
    assert same == {"model.safetensors": True, "config.json": False, "sub/trainer_state.json": False}


def test_small_files_that_nobody_edits_are_linked_too(source: Path, target: Path) -> None:
    """Tensors, and what is ours, are written once: they aren't copied while training waits."""
    once = {"optimizer.pt", "rng_state.pth", "sub/arguments.bin", "vaultlayer_asked.json"}
    for name in once:
        (source / name).write_bytes(b"small")
    snapshot = frozen(source, target)
    same = {name for name in content_of(source) if os.path.samefile(source / name, snapshot.files / name)}
    assert same == {"model.safetensors", *once}


def test_without_links_everything_is_copied(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links the snapshot is a copy, and says so."""
    monkeypatch.setattr(files, "link", lambda source, target: False)
    snapshot = frozen(source, target)
    assert not snapshot.linked
    assert not os.path.samefile(source / "model.safetensors", snapshot.files / "model.safetensors")
    assert content_of(seal_snapshot(snapshot).files) == content_of(source)


def test_rotation_takes_nothing_from_a_snapshot(source: Path, target: Path) -> None:
    """The Trainer may delete or write the folder anew while the snapshot waits."""
    expected = content_of(source)
    snapshot = frozen(source, target)
    shutil.rmtree(source)
    write_checkpoint(source.parent, 500, 10)
    assert content_of(seal_snapshot(snapshot).files) == expected


@pytest.mark.parametrize("moment", ["before the seal", "after the seal"])
@pytest.mark.parametrize("change", ["same size", "longer", "truncated"])
def test_a_rewrite_in_place_is_never_committed(source: Path, target: Path, moment: str, change: str) -> None:
    """A linked file that somebody rewrites in place costs the checkpoint, whenever it happens."""

    def rewrite() -> None:
        path = source / "model.safetensors"
        data = {"same size": b"y" * BIG, "longer": b"y" * (BIG + 1), "truncated": b"y" * (COPY_BELOW + 1)}
        path.write_bytes(data[change])
        later = path.stat().st_mtime_ns + 10**6  # where the clock of the disk is coarse
        os.utime(path, ns=(later, later))

    store = memory_store()
    snapshot = frozen(source, target)
    if moment == "before the seal":
        rewrite()
        with pytest.raises(SnapshotChangedError, match="rewritten"):
            seal_snapshot(snapshot)
        assert find_complete(target)[0] == []
        return
    snapshot = seal_snapshot(snapshot)
    rewrite()
    with pytest.raises((SnapshotChangedError, StoreError)):
        send(store, snapshot, Transfer("data/7/checkpoint-500"))
    with pytest.raises(CorruptError):
        verify_snapshot(snapshot)


def test_small_files_may_be_rewritten(source: Path, target: Path) -> None:
    """A small file that is rewritten in place changes nothing in the snapshot."""
    expected = content_of(source)
    snapshot = frozen(source, target)
    (source / "config.json").write_bytes(b"other")
    assert content_of(seal_snapshot(snapshot).files) == expected


def test_links_to_files_are_followed_once(source: Path, target: Path) -> None:
    """A symbolic link to a file is kept as the file's content; where it leads may change afterwards."""
    outside = source.parent / "blob"
    outside.write_bytes(b"z" * BIG)
    (source / "linked.bin").symlink_to(outside)
    snapshot = frozen(source, target)
    outside.write_bytes(b"changed")
    assert not (snapshot.files / "linked.bin").is_symlink()
    assert content_of(seal_snapshot(snapshot).files)["linked.bin"] == b"z" * BIG


@pytest.mark.parametrize("kind", ["folder link", "dangling link", "pipe", "bad name", "undecodable name"])
def test_what_a_checkpoint_cannot_hold_is_refused(source: Path, target: Path, kind: str) -> None:
    """A folder with something that can't be carried is refused with a typed error, and leaves nothing behind."""
    if kind == "folder link":
        (source / "link").symlink_to(source.parent)
    elif kind == "dangling link":
        (source / "link").symlink_to(source / "absent")
    elif kind == "pipe":
        os.mkfifo(source / "pipe")
    elif kind == "bad name":
        (source / "a\\b").write_bytes(b"")
    else:
        (Path(os.fsdecode(os.fsencode(source) + b"/\xff"))).write_bytes(b"")
    with pytest.raises((VaultLayerError, OSError)):
        frozen(source, target)
    assert not target.exists() or list(target.iterdir()) == []


def test_an_unsealed_snapshot_is_never_found(source: Path, target: Path) -> None:
    """What a process left that died before the seal isn't found."""
    frozen(source, target)
    assert find_complete(target)[0] == []
    assert find_complete(target.parent / "99")[0] == []


def test_sealed_snapshots_are_found_newest_first(source: Path, target: Path) -> None:
    """All sealed snapshots of a writer are found, the newest first, and nothing else."""
    for seq in (2, 10, 9):
        seal_snapshot(frozen(source, target, seq))
    frozen(source, target, 11)
    (target / "junk").mkdir()
    (target / "12-checkpoint-9").write_bytes(b"")
    assert [snapshot.seq for snapshot in find_complete(target)[0]] == [10, 9, 2]


def test_removal_takes_the_seal_first(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose removal was cut short is never found again."""
    snapshot = seal_snapshot(frozen(source, target))
    monkeypatch.setattr(files, "remove_tree", lambda path: None)
    snapshot.remove()
    assert snapshot.files.is_dir()
    assert find_complete(target)[0] == []


@pytest.mark.parametrize("damage", ["missing", "extra", "flipped", "linked folder", "manifest", "no files"])
def test_a_damaged_snapshot_is_never_adopted(source: Path, target: Path, damage: str) -> None:
    """A sealed snapshot with a file missing, added or changed, or with a damaged manifest, doesn't verify."""
    snapshot = seal_snapshot(frozen(source, target))
    if damage == "missing":
        (snapshot.files / "config.json").unlink()
    elif damage == "extra":
        (snapshot.files / "more").write_bytes(b"")
    elif damage == "flipped":
        (snapshot.files / "config.json").write_bytes(b'{"model_type": "tesT"}')
    elif damage == "linked folder":
        (snapshot.files / "more").symlink_to(source)
    elif damage == "no files":
        shutil.rmtree(snapshot.files)
    else:
        (snapshot.path / "manifest.json").write_bytes(b"{")
        assert find_complete(target)[0] == []
        return
    found = find_complete(target)[0]
    assert len(found) == 1
    with pytest.raises((CorruptError, OSError)):
        verify_snapshot(found[0])


def test_a_snapshot_is_handed_over(source: Path, target: Path, tmp_path: Path) -> None:
    """A moved snapshot belongs to the new writer, whole, and is gone from the old one."""
    snapshot = verify_snapshot(sealed_one(source, target))
    other = local_folder(tmp_path / "out", "v1", 9)
    moved = hand_over_snapshot(snapshot, other, 1, 9, 4)
    assert find_complete(target)[0] == []
    found = find_complete(other)[0]
    assert [(item.seq, item.manifest.token, item.manifest.step) for item in found] == [(1, 9, 500)]
    assert found[0].manifest.resumed_from == 4
    assert verify_snapshot(found[0]).manifest.files == snapshot.manifest.files
    check_unchanged(moved, "model.safetensors")


class Died(BaseException):
    """What a process that is killed raises here: nothing catches it."""


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("links", [True, False])
def test_a_hand_over_that_is_cut_short_loses_nothing(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, links: bool
) -> None:
    """Wherever a hand-over is cut short, the snapshot is sealed and whole at one of the two places at least."""
    if not links:
        monkeypatch.setattr(files, "link", lambda source, target: False)
    snapshot = verify_snapshot(sealed_one(source, target, 4))
    other = local_folder(tmp_path / "out", "v1", 9)
    counted = (
        "fsync_file",
        "fsync_folder",
        "make_folder",
        "link",
        "write_file",
        "remove_tree",
        "remove_file",
    )
    plain = {name: getattr(files, name) for name in counted}
    inside, seen, die_at = [0], [0], [0]

    def around(name: str, *args: Any) -> Any:
        if inside[0]:
            return plain[name](*args)
        seen[0] += 1
        if side == "before" and seen[0] == die_at[0]:
            raise Died
        inside[0] = 1
        try:
            result = plain[name](*args)
        finally:
            inside[0] = 0
        if side == "after" and seen[0] == die_at[0]:
            raise Died
        return result

    for name in counted:
        monkeypatch.setattr(files, name, partial(around, name))
    for number in range(1, 100):
        seen[0], die_at[0] = 0, number
        try:
            hand_over_snapshot(snapshot, other, 1, 9, 4)
            break
        except Died:
            there = [*find_complete(target)[0], *find_complete(other)[0]]
            die_at[0] = 0
            assert there
            for found in there:
                assert verify_snapshot(found).manifest.files == snapshot.manifest.files
            if not find_complete(target)[0]:  # as good as done: begin again
                files.remove_tree(target)
                files.remove_tree(other)
                shutil.rmtree(source)
                write_checkpoint(source.parent, 500, BIG)
                snapshot = verify_snapshot(sealed_one(source, target, 4))
    assert number > 10
    assert find_complete(target)[0] == []
    assert [(item.seq, item.manifest.token) for item in find_complete(other)[0]] == [(1, 9)]


def sealed_one(source: Path, target: Path, seq: int = 1) -> Snapshot:
    """Seal a snapshot and find it again, as the next start does."""
    seal_snapshot(frozen(source, target, seq))
    return find_complete(target)[0][0]


def test_a_manifest_of_another_writer_is_not_found(source: Path, target: Path) -> None:
    """A snapshot whose manifest names another token than its folder isn't this writer's."""
    snapshot = seal_snapshot(frozen(source, target))
    path = snapshot.path / "manifest.json"
    path.write_bytes(encode_manifest(replace(decode_manifest(path.read_bytes(), "it"), token=TOKEN + 1)))
    assert find_complete(target)[0] == []


def test_cancelling_a_seal_leaves_it_unsealed(source: Path, target: Path) -> None:
    """A seal that is given up on the way isn't one."""

    def cancel(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal_snapshot(frozen(source, target), cancel)
    assert find_complete(target)[0] == []


def test_files_are_listed_in_order(source: Path) -> None:
    """Listing gives every file by its path with slashes, in order, hidden ones, too."""
    (source / ".metadata").write_bytes(b"")
    assert list_files(source) == [".metadata", "config.json", "model.safetensors", "sub/trainer_state.json"]


def whole(source: Path, target: Path, seq: int = 1) -> Snapshot:
    """Take a snapshot and note that all ranks had written it."""
    return note_whole(frozen(source, target, seq))


def test_a_whole_snapshot_is_found_on_the_same_boot_and_sealed_then(source: Path, target: Path) -> None:
    """What all ranks had written counts before it is sealed; verifying it seals it, with everything noted of it."""
    expected = content_of(source)
    whole(source, target)
    (found,), passed = find_complete(target)
    assert (found.sealed, passed) == (False, [])
    sound = verify_snapshot(found)
    assert sound.sealed
    assert content_of(sound.files) == expected
    (again,), _ = find_complete(target)
    assert again.manifest == sound.manifest
    assert verify_snapshot(again).manifest == sound.manifest


CHANGES: dict[str, Any] = {
    "a file rewritten": (
        lambda snapshot: (snapshot.files / "config.json").write_bytes(b"{}"),
        "it was changed",
    ),
    "a file rewritten in place with its size": (
        lambda snapshot: os.utime(snapshot.files / "model.safetensors", ns=(1, 1)),
        "it was changed",
    ),
    "a file replaced by a copy": (
        lambda snapshot: replace_by_copy(snapshot.files / "config.json"),
        "it was changed",
    ),
    "a file missing": (lambda snapshot: (snapshot.files / "config.json").unlink(), "added or removed"),
    "a file more": (lambda snapshot: (snapshot.files / "more").write_bytes(b"1"), "added or removed"),
    "a link to a folder": (lambda snapshot: (snapshot.files / "more").symlink_to("sub"), "link to a folder"),
}


def replace_by_copy(path: Path) -> None:
    """Put a file with the same bytes and times in a file's place."""
    shutil.copy2(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


@pytest.mark.parametrize("what", CHANGES)
def test_a_whole_snapshot_that_was_touched_does_not_count(source: Path, target: Path, what: str) -> None:
    """A snapshot that isn't sealed counts only with exactly the files that were noted; the reason is told."""
    change, words = CHANGES[what]
    change(whole(source, target))
    found, (passed,) = find_complete(target)
    assert found == []
    assert (passed.token, passed.seq, passed.name) == (TOKEN, 1, "checkpoint-500")
    assert words in passed.reason


@pytest.mark.parametrize("boot", ["another", "none now", "none then"])
def test_behind_a_restart_of_the_machine_only_sealed_snapshots_count(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """On another boot, or where boots can't be told apart, a whole snapshot is passed over and a sealed one found."""
    seal_snapshot(whole(source, target, 1))
    other = tmp_path / "boot_id"
    if boot == "another":
        other.write_text("5b3bf6e0-0000-4000-8000-000000000000\n")
    with monkeypatch.context() as patch:
        if boot == "none then":
            patch.setattr(written, "BOOT_ID", other)
        whole(source, target, 2)
    if boot != "none then":
        monkeypatch.setattr(written, "BOOT_ID", other)
    (found,), (passed,) = find_complete(target)
    assert (found.seq, passed.seq) == (1, 2)
    assert "restarted since" in passed.reason


@pytest.mark.parametrize(
    "damage", ["another token", "another position", "cut", "empty", "not an object", "bad look"]
)
def test_a_note_that_does_not_belong_there_counts_for_nothing(
    source: Path, target: Path, damage: str
) -> None:
    """A note of another writer or save, or one that can't be read, makes no snapshot."""
    snapshot = whole(source, target)
    path = snapshot.path / written.NOTE
    body = json.loads(path.read_bytes())
    if damage == "another token":
        body["manifest"]["token"] = TOKEN + 1
    elif damage == "another position":
        body["manifest"]["seq"] = 2
    elif damage == "bad look":
        body["files"]["config.json"] = ["1"]
    data = json.dumps(body).encode()
    path.write_bytes({"cut": data[:-20], "empty": b"", "not an object": b"[]"}.get(damage, data))
    assert find_complete(target) == ([], [])


def test_a_snapshot_that_changed_before_its_note_gets_none(source: Path, target: Path) -> None:
    """A file that is rewritten while the ranks agree isn't noted as if it were whole."""
    snapshot = frozen(source, target)
    (snapshot.files / "config.json").write_bytes(b"other")
    with pytest.raises(SnapshotChangedError):
        note_whole(snapshot)
    assert find_complete(target) == ([], [])


@pytest.mark.parametrize("sealed", [False, True])
def test_a_half_removed_snapshot_is_never_found(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """A process that dies while it removes a snapshot leaves a whole one, or none that counts."""
    snapshot = seal_snapshot(whole(source, target)) if sealed else whole(source, target)
    expected = content_of(snapshot.files)
    plain = os.unlink
    for survived in range(10):
        left = survived

        def unlink(*args: Any, **options: Any) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            plain(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            try:
                snapshot.remove()
            except KeyboardInterrupt:
                pass
        for found in find_complete(target)[0]:
            assert content_of(found.files) == expected
    assert find_complete(target) == ([], [])
