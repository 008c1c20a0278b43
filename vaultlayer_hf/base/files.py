"""Durable operations on local files: the only place in the package that links, renames and fsyncs.

Having them in one module lets a test stop a process before and after each one. The rules are those of
every program that survives a power cut: write under a temporary name, fsync, rename, fsync the folder.

What only POSIX or only Linux has is looked up when it is called: a vault can be read on any system, and a checkpoint
written on POSIX. Each function says what it does where the system lacks something.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

_AT_FDCWD, _RENAME_NOREPLACE, _SYNC_FILE_RANGE_WRITE = -100, 1, 2  # <fcntl.h>, <linux/fs.h>
TEMPORARY = ".tmp-"
"""What the name of a file begins with that is being written; one that stays was cut short by a kill."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a disk without space, or of a quota or size limit that is used up."""
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS}
"""What fsync(2) answers where a file system has no such call (some FUSE and network mounts)."""
_NO_LINKS = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, *_NO_FLUSH}
"""What link(2) answers where a file can't be linked (FAT, many FUSE mounts, another device)."""


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """Return the C library, for calls that Python has no function for; None where it isn't one of POSIX."""
    return ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def fsync(descriptor: int) -> None:
    """Flush what is open to the disk; a file system that can't flush (some FUSE mounts) is left to itself."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def fsync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    _flush(path, os.O_RDONLY)


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk; nothing where one can't be opened as a file (Windows)."""
    if os.name == "posix":
        _flush(path, os.O_RDONLY | os.O_DIRECTORY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: memoryview, offset: int) -> int:
    """Write to a place in a file that nobody else uses at that time, and return how many bytes it took."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def reserve(path: Path, size: int) -> None:
    """Give an empty file its size and its place on the disk before it is written, where the file system can.

    Written back, it then needs no allocation, which takes processor time and holds writers up. posix_fallocate(3) isn't
    used: where the file system can't, it writes to each block. Raises OSError where there is no space.
    """
    fallocate = getattr(_libc(), "fallocate64", None) if size else None
    if fallocate is None:
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if fallocate(descriptor, 0, 0, size) != 0 and (code := ctypes.get_errno()) in FULL:
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def start_flush(path: Path) -> None:
    """Have the disk begin to write what a file holds by now, and don't wait; ``fsync_file`` makes sure.

    Best effort: errors are left to that. sync_file_range(2) where there is one: fsync(2) holds up the file's writers.
    """
    sync_file_range = getattr(_libc(), "sync_file_range", None)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        if sync_file_range is not None:
            sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
            sync_file_range(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, durably."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def rename(source: Path, target: Path, *, flush: bool = True) -> None:
    """Rename, replacing ``target`` where it is a file, and flush the folder unless somebody else will."""
    _replace(source, target)
    if flush:
        fsync_folder(target.parent)


def _replace(source: Path, target: Path) -> None:
    """Rename; where the file system renames onto no file (some FUSE mounts), ``target`` is absent for a moment."""
    try:
        os.replace(source, target)
    except FileExistsError:
        if not target.is_file():
            raise
        target.unlink(missing_ok=True)
        os.replace(source, target)


def move(source: Path, target: Path) -> None:
    """Rename, to another file system, too, and flush the folder; a file there is replaced, a folder must be absent."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)
    fsync_folder(target.parent)


def link(source: Path, target: Path) -> bool:
    """Give a file a second name; return False where the file system can't. Raises FileExistsError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def read_from(path: Path, offset: int) -> bytes:
    """Return what a file holds from ``offset`` on; nothing where there is no such file. Raises OSError."""
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read()


def read_small(path: Path, limit: int) -> bytes:
    """Return the content of a plain file of at most ``limit`` bytes, which may have been put there by anybody.

    Raises OSError for what is larger, a link, or no file: a pipe in its place would make the reader wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return data


def write_file(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Create or replace a small file, atomically and durably; ``like``: a file whose mode it gets."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            fsync(file.fileno())
        if like is not None:
            shutil.copymode(like, temporary)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Deferred:
    """A file that a thread writes later.

    Attributes:
        final: the name that this thread gives it once it is written; None: it is written under its own name.
    """

    final: Path | None = None


def write_unflushed(path: Path, data: bytes | memoryview) -> None:
    """Create or replace a file of a checkpoint, atomically as ``write_atomically`` does. Raises OSError."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a file under a temporary name, then rename it to ``path``: a file at ``path`` is whole.

    The disk isn't told to flush it, because training waits for this call. The files of a checkpoint are flushed when
    its snapshot is sealed, and only a sealed one must outlive a power cut.

    Where ``write`` returns a ``Deferred``, a thread writes the content later: nothing is renamed here, and ``path``
    becomes its ``final``, the name that this thread gives the file when it is written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        written = write(temporary)
        if isinstance(written, Deferred):
            written.final = path
            return
        _replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds; an absent one is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file or a link; an absent one is no error."""
    path.unlink(missing_ok=True)


def rename_new(source: Path, target: Path) -> bool:
    """Rename in one atomic step, only if ``target`` is absent; return False where the system can't.

    Raises FileExistsError. Works on file systems without hard links, such as FAT; many FUSE mounts refuse.
    """
    renameat2 = getattr(_libc(), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    fsync_folder(target.parent)
    return True
