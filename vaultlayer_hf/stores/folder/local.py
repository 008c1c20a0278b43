"""Helpers of FolderStore: errors of the operating system as errors of a store, and the copying of bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import (
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import ObjectInfo, Pace

CHUNK = 8 * 1024 * 1024
"""Bytes that are copied at a time; also what a pace sees per call, at most."""

OPEN_TO_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
OPEN_TO_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""Flags to read an object with. O_NONBLOCK: a pipe that somebody laid there must not hold us. O_BINARY: of Windows."""

_MARKER_PATIENCE = 30.0  # seconds after which a marker's owner counts as dead; it needs it for milliseconds
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
_HOPELESS = {errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.EEXIST, errno.ENOTEMPTY}
_NO_KERNEL_COPY = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}


class PaceStopped(Exception):  # noqa: N818  no error: it carries one past the handlers of OSError
    """A pace raised ``error``, which has to come out as it is, whatever its type."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def translate(operation: str, key: str, error: OSError) -> StoreError:
    """Return the store's error for an error of the operating system."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _ABSENT:
        return ObjectNotFoundError(operation, key, "no such object")
    if error.errno in _FULL:
        return StoreFullError(operation, key, reason, "free some space, or raise the quota")
    if error.errno in _DENIED:
        return StoreDeniedError(
            operation, key, reason, "check the permissions and mount of the vault's folder"
        )
    if error.errno in _HOPELESS:
        return StoreError(operation, key, reason)
    return StoreUnavailableError(operation, key, reason)


def no_folder(root: Path) -> StoreError:
    """Return the error for a vault where a file is, or a symbolic link that leads nowhere, in or above its place."""
    for path in (*reversed(root.parents), root):
        if path.is_symlink() and not os.path.exists(path):
            return StoreError("open", "", f"{path} is a symbolic link that leads nowhere", "mend the link")
        if not path.is_dir():
            return StoreError("open", "", f"{path} is a file", "name a folder")
    return StoreError("open", "", f"{root} is no folder", "name a folder")


def unreadable(key: str, source: Path, error: OSError) -> StoreError:
    """Return the error for a local file that can't be uploaded."""
    return StoreError(
        "upload", key, f"can't read the local file {source}: {(error.strerror or str(error)).lower()}"
    )


def copy_bytes(source: int, target: int, size: int, pace: Pace | None) -> int:
    """Copy the first ``size`` bytes from one descriptor to another; return how many there were.

    The kernel copies (or shares the blocks) where it can. ``pace`` is called before each chunk; what it
    raises comes out in PaceStopped.
    """
    done, by_kernel = 0, hasattr(os, "copy_file_range")
    while done < size:
        length = min(CHUNK, size - done)
        if pace is not None:
            try:
                pace(length)
            except Exception as error:
                raise PaceStopped(error) from None
        goal = done + length
        while done < goal:
            if by_kernel:
                try:
                    moved = os.copy_file_range(source, target, goal - done, done, done)
                except OSError as error:
                    if error.errno not in _NO_KERNEL_COPY:
                        raise
                    moved = 0
                if moved:
                    done += moved
                    continue
                by_kernel = False  # 0 is also what some FUSE mounts answer in the middle of a file
            os.lseek(source, done, os.SEEK_SET)  # both are this call's alone; not every system has pread
            os.lseek(target, done, os.SEEK_SET)
            data = os.read(source, goal - done)
            if not data:
                return done
            view = memoryview(data)
            while view:
                written = os.write(target, view)
                done += written
                view = view[written:]
    return done


def object_info(key: str, info: os.stat_result) -> ObjectInfo:
    """Return what a store says of a file."""
    return ObjectInfo(key, info.st_size, f"{info.st_mtime_ns}-{info.st_size}-{info.st_ino}", info.st_mtime)


def read_exactly(operation: str, key: str, descriptor: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes from offset ``start``; raise StoreError where the file ends before."""
    # The descriptor is this call's alone; not every system has pread.
    os.lseek(descriptor, start, os.SEEK_SET)
    data = os.read(descriptor, length)
    while len(data) < length:  # a signal, or the kernel's bound of 2 GB a call
        more = os.read(descriptor, length - len(data))
        if not more:
            raise StoreError(operation, key, f"became shorter than {start + length} bytes while it was read")
        data += more
    return data


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def fill_from(descriptor: int, read: Callable[[int], bytes], size: int) -> None:
    """Write the ``size`` bytes that ``read`` gives; what it raises comes out in PaceStopped."""
    for at in range(0, size, CHUNK):
        try:
            data = read(min(CHUNK, size - at))
        except Exception as error:
            raise PaceStopped(error) from None
        write_all(descriptor, data)


def remove_stale(folder: Path, older_than: float) -> int:
    """Remove files of a folder that are unchanged for ``older_than`` seconds; return how many."""
    removed = 0
    with contextlib.suppress(OSError):  # tidying never fails a write
        probe = folder / f"clock-{uuid.uuid4().hex}"
        probe.touch()
        now = probe.stat().st_mtime  # by the clock of the file system, which dates the others too
        files.remove_file(probe)
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > older_than:
                    files.remove_file(path)
                    removed += 1
    return removed


def rename_guarded(key: str, temporary: Path, target: Path) -> None:
    """Rename if the target is absent, on a file system that can't do so in one step; raise FileExistsError.

    A marker beside the temporary file, created with O_EXCL, keeps other processes out meanwhile; one whose
    owner died is removed after half a minute by the file system's own clock.
    """
    marker = temporary.with_name(f"create-{hashlib.sha256(key.encode()).hexdigest()[:32]}")
    deadline = time.monotonic() + 2 * _MARKER_PATIENCE
    while True:
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if os.path.lexists(target):
                raise
        if time.monotonic() > deadline:
            raise StoreUnavailableError("create", key, "another process has been creating it for too long")
        time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):
            os.utime(temporary)
            if temporary.stat().st_mtime - marker.stat().st_mtime > _MARKER_PATIENCE:
                files.remove_file(marker)
    try:
        if os.path.lexists(target):
            raise FileExistsError(str(target))
        files.rename(temporary, target)
    finally:
        files.remove_file(marker)
