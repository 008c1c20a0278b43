"""What a folder adds to the contract: durability, full and read-only disks, links, leftovers, no hard links."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT
from vaultlayer_hf.base import files
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.stores.folder.local import translate
from vaultlayer_hf.stores.probe import probe_create


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def store(vault: Path) -> FolderStore:
    return FolderStore(vault)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(b"local data")
    return path


def writes(store: Store, local: Path) -> dict[str, Callable[[], object]]:
    """Every way to make the object ``new/x``."""
    return {
        "create": lambda: store.create("new/x", b"data"),
        "write": lambda: store.write("new/x", b"data"),
        "upload": lambda: store.upload("new/x", local, size=4),
        "copy": lambda: store.copy("old", "new/x"),
    }


def names(store: Store) -> list[str]:
    return [info.key for info in store.list("")]


@pytest.mark.parametrize("operation", ["create", "write", "upload", "copy"])
def test_flushed_before_it_has_its_name(
    operation: str, vault: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are flushed before the object gets its name; then its folder is flushed, and each parent."""
    FolderStore(vault).write("old", b"data")
    calls: list[tuple[str, Path]] = []
    for name in ("fsync_file", "fsync_folder", "rename", "link"):
        inner = getattr(files, name)

        def traced(*paths: Path, name: str = name, inner: Callable[..., object] = inner) -> object:
            calls.append((name, paths[-1]))
            return inner(*paths)

        monkeypatch.setattr(files, name, traced)
    writes(FolderStore(vault), local)[operation]()
    flushed = next(i for i, (name, _) in enumerate(calls) if name == "fsync_file")
    named = next(i for i, call in enumerate(calls) if call[1] == vault / "new/x")
    assert calls[named][0] in ("rename", "link")
    assert calls[flushed][1].parent == vault / ".tmp"
    assert flushed < named
    assert ("fsync_folder", vault / "new") in calls[named:]
    assert ("fsync_folder", vault) in calls[:named]


def test_killed_in_an_upload(vault: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an upload leaves the old object as it was and shows nothing new."""
    big = tmp_path / "big"
    big.write_bytes(bytes(30_000_000))
    store = FolderStore(vault)
    store.write("data/x", b"old")
    program = f"""
from pathlib import Path
from vaultlayer_hf.stores.folder import FolderStore
from vaultlayer_hf.testing import Fault, FaultStore
store = FaultStore(FolderStore({str(vault)!r}), {{1: Fault.killed_during()}})
store.upload("data/x", Path({str(big)!r}), size=30_000_000)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert names(store) == ["data/x"]
    assert store.read("data/x", limit=10) == b"old"
    assert len(list((vault / ".tmp").iterdir())) == 1


def test_leftovers_are_cleaned_after_a_grace(vault: Path) -> None:
    """The next writer removes files that dead processes left long ago, and none that may be in use."""
    (vault / ".tmp").mkdir(parents=True)
    for name, age in (("dead", 90_000), ("alive", 80_000)):
        path = vault / ".tmp" / name
        path.write_bytes(b"half")
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
    store = FolderStore(vault)
    assert names(store) == []
    store.write("x", b"x")
    assert [path.name for path in (vault / ".tmp").iterdir()] == ["alive"]
    assert store.clean_temporary(70_000) == 1


def test_temporary_names_are_not_keys(store: FolderStore) -> None:
    """No object can be hidden among the unfinished files."""
    for key in (".tmp", ".tmp/x"):
        with pytest.raises(StoreError):
            store.write(key, b"x")
    store.write("data/.tmp/x", b"x")
    store.write(".tmp-x", b"x")
    assert names(store) == [".tmp-x", "data/.tmp/x"]


@pytest.mark.parametrize("operation", ["create", "write", "upload", "copy"])
def test_full_disk(operation: str, small_disk: Path, tmp_path: Path) -> None:
    """A full disk is StoreFullError, leaves nothing behind, and the same call works once there is space."""
    store = FolderStore(small_disk / "vault")
    data = os.urandom(1_500_000)
    big = tmp_path / "big"
    big.write_bytes(data)
    store.write("old", data)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    calls = {
        "create": lambda: store.create("x", data),
        "write": lambda: store.write("x", data),
        "upload": lambda: store.upload("x", big, size=len(data)),
        "copy": lambda: store.copy("old", "x"),
    }
    with pytest.raises(StoreFullError) as caught:
        calls[operation]()
    assert (caught.value.operation, caught.value.key) == (operation, "x")
    assert names(store) == ["old"]
    assert list((small_disk / "vault/.tmp").iterdir()) == []
    ballast.unlink()
    calls[operation]()
    assert store.read("x", limit=len(data)) == data


def test_read_only_vault(vault: Path, local: Path, read_only: Callable[[Path], Path]) -> None:
    """A vault where nothing can be written can be read, and each write is StoreDeniedError."""
    FolderStore(vault).write("old", b"data")
    shown = read_only(vault)
    for create in (False, True):
        store = open_store(shown, create=create)
        assert names(store) == ["old"]
        assert store.read("old", limit=10) == b"data"
        for operation, call in writes(store, local).items():
            with pytest.raises(StoreDeniedError) as caught:
                call()
            assert (caught.value.operation, caught.value.key) == (operation, "new/x")
        with pytest.raises(StoreDeniedError):
            store.delete(["old"])
    with pytest.raises(StoreDeniedError):
        open_store(shown / "another")


def test_opening(vault: Path, local: Path) -> None:
    """A reader makes no folder and says that there is none; a file, or a link that leads nowhere, is no vault."""
    with pytest.raises(ObjectNotFoundError, match="there is no folder"):
        open_store(vault, create=False)
    assert not vault.exists()
    for create in (False, True):
        for place in (local, local / "below"):
            with pytest.raises(StoreError, match=f"{local} is a file"):
                open_store(place, create=create)
    nowhere = vault.with_name("nowhere")
    nowhere.symlink_to(vault.with_name("absent") / "absent")
    with pytest.raises(StoreError, match=f"{nowhere} is a symbolic link that leads nowhere"):
        open_store(nowhere)
    open_store(vault)
    assert list(vault.iterdir()) == []


def test_a_vault_that_went_away(store: FolderStore, vault: Path, local: Path) -> None:
    """An unmounted vault is out of reach, not empty; no write makes it anew, and it works when it is back."""
    store.write("old", b"data")
    vault.rename(vault.with_name("elsewhere"))
    reads = {
        "read": lambda: store.read("old", limit=10),
        "head": lambda: store.head("old"),
        "list": lambda: list(store.list("")),
        "list of a prefix": lambda: list(store.list("log/")),
        "delete": lambda: store.delete(["old"]),
    }
    for call in (reads | writes(store, local)).values():
        with pytest.raises(StoreUnavailableError, match="is gone"):
            call()
    assert not vault.exists()
    vault.with_name("elsewhere").rename(vault)
    assert names(store) == ["old"]
    store.write("new", b"data")


def test_links_that_lead_out(store: FolderStore, vault: Path, local: Path, tmp_path: Path) -> None:
    """Nothing outside of the vault is read, written or deleted through a symbolic link, and none is listed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.write("old", b"data")
    (vault / "way").symlink_to(outside)
    (vault / "file").symlink_to(outside / "secret")
    (vault / "up").symlink_to("../outside")
    for key in ("way/secret", "file", "up/secret", "way/fresh"):
        for call in (
            lambda key: store.read(key, limit=10),
            store.head,
            lambda key: store.create(key, b"x"),
            lambda key: store.write(key, b"x"),
            lambda key: store.upload(key, local, size=4),
            lambda key: store.copy("old", key),
            lambda key: store.copy(key, "new"),
            lambda key: store.delete([key]),
        ):
            with pytest.raises(StoreDeniedError, match="leads out"):
                call(key)
    with pytest.raises(StoreDeniedError, match="leads out"):
        list(store.list("way/"))
    assert names(store) == ["old"]
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_vault_reached_by_a_link(vault: Path, tmp_path: Path) -> None:
    """The vault's own folder may be a symbolic link."""
    FolderStore(vault).write("a/b", b"data")
    link = tmp_path / "link"
    link.symlink_to(vault)
    store = FolderStore(link)
    store.write("a/c", b"data")
    assert names(store) == ["a/b", "a/c"]


def test_names_that_clash(store: FolderStore, local: Path) -> None:
    """An object can't have the name of a folder or lie below an object; that is an error, and harms neither."""
    store.write("a/b", b"data")
    for key in ("a", "a/b/c"):
        for call in (
            lambda key: store.create(key, b"x"),
            lambda key: store.write(key, b"x"),
            lambda key: store.upload(key, local, size=4),
        ):
            with pytest.raises(StoreError) as caught:
                call(key)
            assert not isinstance(caught.value, ObjectNotFoundError | StoreUnavailableError)
    assert names(store) == ["a/b"]


def test_a_pipe_is_no_object(store: FolderStore, vault: Path) -> None:
    """A pipe that somebody laid into the vault neither holds a reader nor is listed."""
    os.mkfifo(vault / "pipe")
    with pytest.raises(ObjectNotFoundError):
        store.read("pipe", limit=10)
    assert names(store) == []


def test_deletion_tidies_up(store: FolderStore, vault: Path) -> None:
    """Deleting the last object of a folder removes the folder, never the vault, and the key can be used again."""
    store.write("a/b/c", b"x")
    store.delete(["a/b/c"])
    assert not (vault / "a").exists()
    assert vault.exists()
    store.write("a/b/c", b"y")
    assert store.read("a/b/c", limit=10) == b"y"


def test_folder_removed_beside_a_writer(store: FolderStore, vault: Path) -> None:
    """A writer whose folder another process has tidied away makes it again."""
    store.write("log/1", b"x")
    FolderStore(vault).delete(["log/1"])
    store.create("log/2", b"y")
    assert names(store) == ["log/2"]


def refuse(*_: object) -> bool:
    return False


def test_without_hard_links_but_exclusive_rename(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where link(2) is refused, as on FAT, an exclusive rename still gives an atomic create."""
    monkeypatch.setattr(files, "link", refuse)
    assert probe_create(store)
    store.create("x", b"one")
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"two")
    assert store.read("x", limit=10) == b"one"


def test_the_probe_tells_of_no_atomic_create(fuse_folder: Path) -> None:
    """On a FUSE mount without hard links the probe says so; create still refuses what exists."""
    store = FolderStore(fuse_folder / "vault")
    assert not probe_create(store)
    assert not store.supports_create
    store.create("x", b"one")
    with pytest.raises(AlreadyExistsError):
        store.create("x", b"two")
    assert store.read("x", limit=10) == b"one"


def test_marker_of_a_dead_process(store: FolderStore, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died within a guarded create doesn't block that key for ever."""
    monkeypatch.setattr(files, "link", refuse)
    monkeypatch.setattr(files, "rename_new", refuse)
    marker: list[Path] = []
    rename = files.rename

    def spy(source: Path, target: Path) -> None:
        marker.extend((vault / ".tmp").glob("create-*"))
        rename(source, target)

    monkeypatch.setattr(files, "rename", spy)
    store.create("x", b"one")
    store.delete(["x"])
    marker[0].touch()
    old = marker[0].stat().st_mtime - 60
    os.utime(marker[0], (old, old))
    store.create("x", b"two")
    assert store.read("x", limit=10) == b"two"
    assert list((vault / ".tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, ObjectNotFoundError),
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EACCES, StoreDeniedError),
        (errno.EPERM, StoreDeniedError),
        (errno.EROFS, StoreDeniedError),
        (errno.EIO, StoreUnavailableError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.ENOTCONN, StoreUnavailableError),
        (errno.ETIMEDOUT, StoreUnavailableError),
        (errno.ENAMETOOLONG, StoreError),
    ],
)
def test_errors_of_the_system(number: int, kind: type[StoreError]) -> None:
    """Each error of the operating system becomes the one that says what the caller should do."""
    error = translate("write", "a/b", OSError(number, "x", "/secret/place"))
    assert type(error) is kind
    assert str(error).startswith("write a/b: ")


def test_too_long_a_name(store: FolderStore) -> None:
    """A name that the file system can't hold is an error for good, not passing trouble."""
    with pytest.raises(StoreError) as caught:
        store.write("x" * 300, b"x")
    assert type(caught.value) is StoreError
