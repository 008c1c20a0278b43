"""FolderStore: a vault in a folder of a local, network or FUSE file system.

What makes a write whole and durable, in this order: the bytes go to a file under ``<root>/.tmp/``, which is
flushed; the file gets its name by one atomic step; the folder of that name is flushed, and so are the parents
that were new. A reader therefore sees nothing or all of it, also after a power cut.

That atomic step is rename(2) where an older object may be replaced. For create-if-absent it is link(2), else
renameat2(RENAME_NOREPLACE). Where the file system has neither (Google Drive and other FUSE mounts) a marker
created with O_EXCL guards a look and a rename: that holds between processes that follow the same custom and
see the same folder at once. So ``supports_create`` becomes False, as on the mount of a bucket (mounts.py).

Nothing outside the root is touched: keys are checked, and a symbolic link that leads out is refused. The root
is made once, when the store is opened; if it is gone later (unmounted), that is an error, never a new folder.

    listing.py   what lies in a vault's folder, as objects in the order of their keys
    local.py     helpers of FolderStore
    mounts.py    mounts that only look safe for two writers

Imports the store's contract and base; stores/__init__.py opens it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, check_key
from vaultlayer_hf.stores.folder.listing import TEMPORARY, walk
from vaultlayer_hf.stores.folder.local import (
    OPEN_TO_CREATE,
    OPEN_TO_READ,
    PaceStopped,
    copy_bytes,
    fill_from,
    no_folder,
    object_info,
    read_exactly,
    remove_stale,
    rename_guarded,
    translate,
    unreadable,
    write_all,
)
from vaultlayer_hf.stores.folder.mounts import last_writer_wins


class FolderStore(Store):
    """A store in a folder.

    ::

        store = FolderStore("/data/my-run")
        store.create("log/1", b"{}")
        assert store.read("log/1", limit=100) == b"{}"

    Args:
        root: the vault's folder.
        uri: what to call it in messages; ``file://<root>`` by default.
        create: make the folder if it is absent. Readers pass False and need no write permission.
        stale_after: seconds after which a file left in ``.tmp`` by a dead process is removed, at the first
            write of this store.

    Raises:
        ObjectNotFoundError: there is no such folder and ``create`` is False.
        StoreDeniedError: the folder may not be made.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        uri: str = "",
        create: bool = True,
        stale_after: float = 86400.0,
    ) -> None:
        self.root = Path(os.path.abspath(root))
        self.uri = uri or f"file://{self.root}"
        self.stale_after = stale_after
        self._temporary = self.root / TEMPORARY
        self._lock = threading.Lock()
        self._durable: set[Path] = set()  # folders whose own entries are known to be flushed, up to the root
        try:
            if create:
                files.make_folder(self.root)
            if not stat.S_ISDIR(os.stat(self.root).st_mode):
                raise no_folder(self.root)
        except FileNotFoundError:
            raise ObjectNotFoundError("open", "", f"there is no folder {self.root}") from None
        except (FileExistsError, NotADirectoryError):
            raise no_folder(self.root) from None
        except OSError as error:
            raise translate("open", str(self.root), error) from error
        self._real_root = os.path.realpath(self.root)
        self.supports_create = not last_writer_wins(self._real_root)

    def read(self, key: str, *, limit: int) -> bytes:
        with self._opened("read", key) as (descriptor, info):
            if info.st_size > limit:
                raise StoreError("read", key, f"has {info.st_size} bytes, more than the {limit} allowed here")
            return read_exactly("read", key, descriptor, 0, info.st_size)

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        with self._opened("read_range", key) as (descriptor, info):
            if start < 0 or length < 0 or start + length > info.st_size:
                raise StoreError("read_range", key, f"{start}+{length} was asked for, it has {info.st_size}")
            return memoryview(read_exactly("read_range", key, descriptor, start, length))

    def head(self, key: str) -> ObjectInfo:
        with self._opened("head", key) as (_, info):
            return object_info(key, info)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        top = self._path("list", prefix[:-1]) if prefix else self.root
        try:
            yield from walk(top, prefix, os.fsencode(after), lambda: self._check_root("list", prefix))
        except OSError as error:
            raise self._translated("list", prefix, error) from error

    def create(self, key: str, data: bytes) -> None:
        def name(temporary: Path, target: Path) -> None:
            try:
                if files.link(temporary, target):
                    files.fsync_folder(target.parent)
                elif not files.rename_new(temporary, target):
                    self.supports_create = False
                    rename_guarded(key, temporary, target)
            except FileExistsError:
                raise AlreadyExistsError("create", key, "exists already") from None

        self._publish("create", key, lambda descriptor: write_all(descriptor, data), name)

    def write(self, key: str, data: bytes) -> None:
        self._publish("write", key, lambda descriptor: write_all(descriptor, data), files.rename)

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        try:
            origin = os.open(source, OPEN_TO_READ)
        except OSError as error:
            raise unreadable(key, source, error) from error
        try:
            return self._copy_in("upload", key, origin, size, pace)
        except PaceStopped as stopped:
            raise stopped.error from None
        finally:
            os.close(origin)

    def upload_from(
        self, key: str, read: Callable[[int], bytes], *, size: int, pace: Pace | None = None
    ) -> ObjectInfo:
        fill = partial(fill_from, read=read, size=size)
        try:
            return self._publish("upload", key, fill, files.rename)
        except PaceStopped as stopped:
            raise stopped.error from None

    def copy(self, source: str, target: str) -> ObjectInfo:
        with self._opened("copy", source) as (origin, info):
            return self._copy_in("copy", target, origin, info.st_size, None)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path("delete", key)
            self._check_root("delete", key)
            try:
                if path.is_dir():  # no object: a folder of objects
                    continue
                files.remove_file(path)
                self._remove_empty(path.parent)
            except NotADirectoryError:  # below an object: absent
                continue
            except OSError as error:
                raise self._translated("delete", key, error) from error

    def clean_temporary(self, older_than: float) -> int:
        """Remove unfinished files, unchanged for ``older_than`` seconds; return how many."""
        return remove_stale(self._temporary, older_than)

    @contextlib.contextmanager
    def _opened(self, operation: str, key: str) -> Iterator[tuple[int, os.stat_result]]:
        try:
            descriptor = os.open(self._path(operation, key), OPEN_TO_READ)
        except OSError as error:
            raise self._translated(operation, key, error) from error
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise ObjectNotFoundError(operation, key, "no such object")
            yield descriptor, info
        except OSError as error:
            raise self._translated(operation, key, error) from error
        finally:
            os.close(descriptor)

    # Writing

    def _copy_in(self, operation: str, key: str, origin: int, size: int, pace: Pace | None) -> ObjectInfo:
        def fill(descriptor: int) -> None:
            copied = copy_bytes(origin, descriptor, size, pace)
            if copied < size:
                raise StoreError(operation, key, f"the source has {copied} bytes, {size} were expected")

        return self._publish(operation, key, fill, files.rename)

    def _publish(
        self, operation: str, key: str, fill: Callable[[int], None], name: Callable[[Path, Path], None]
    ) -> ObjectInfo:
        """Write a temporary file with ``fill``, flush it, give it its name with ``name``."""
        target = self._path(operation, key)
        temporary = self._temporary / uuid.uuid4().hex
        try:
            self._ensure_folder(operation, key, self._temporary)
            descriptor = os.open(temporary, OPEN_TO_CREATE, 0o666)
            try:
                fill(descriptor)
                info = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            files.fsync_file(temporary)
            for attempt in (1, 2):
                self._ensure_folder(operation, key, target.parent)
                try:
                    name(temporary, target)
                    break
                except FileNotFoundError:  # somebody removed the folder while it was empty
                    with self._lock:
                        self._durable.clear()
                    if attempt == 2:
                        raise
        except (NotADirectoryError, IsADirectoryError):
            reason = "a folder has this name, or an object has the name of its folder"
            raise StoreError(operation, key, reason) from None
        except FileNotFoundError as error:
            self._check_root(operation, key)
            raise StoreUnavailableError(
                operation, key, "its unfinished file or folder was removed"
            ) from error
        except OSError as error:
            raise translate(operation, key, error) from error
        finally:
            with contextlib.suppress(OSError):
                files.remove_file(temporary)
        return object_info(key, info)

    def _ensure_folder(self, operation: str, key: str, folder: Path) -> None:
        """Make a folder below the root and flush it up to the root, whoever made it; once for each."""
        if folder in self._durable:
            return
        with self._lock:
            self._check_root(operation, key)
            files.make_folder(folder)
            parent = folder
            while parent not in (self.root, parent.parent):
                parent = parent.parent
                files.fsync_folder(parent)
            self._durable.add(folder)
        if folder == self._temporary:
            self.clean_temporary(self.stale_after)

    def _remove_empty(self, folder: Path) -> None:
        """Remove folders that a deletion left empty; the root stays."""
        with contextlib.suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                self._durable.discard(folder)
                folder = folder.parent

    # Keys and errors

    def _path(self, operation: str, key: str) -> Path:
        check_key(operation, key)
        if key.split("/", 1)[0] == TEMPORARY:
            raise StoreError(operation, key, "this name is kept for unfinished files")
        real = os.path.realpath(path := self.root / key)
        if not real.startswith(self._real_root.rstrip(os.sep) + os.sep):
            reason, hint = "a symbolic link leads out of the vault", "a vault holds no links to other places"
            raise StoreDeniedError(operation, key, reason, hint)
        return path

    def _check_root(self, operation: str, key: str) -> None:
        if not os.path.isdir(self.root):
            raise StoreUnavailableError(operation, key, f"the vault's folder {self.root} is gone; unmounted?")

    def _translated(self, operation: str, key: str, error: OSError) -> StoreError:
        if isinstance(error, FileNotFoundError):
            self._check_root(operation, key)
        return translate(operation, key, error)
