"""Locks on files and folders against other processes: the only place in the package that calls flock(2).

A lock of this kind ends with the process that holds it, however that ends, so a killed run leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a folder against other processes while the block runs; hand it False where another one holds it.

    A system without flock(2), such as Windows, locks nothing.
    """
    if os.name != "posix":
        yield True
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file against other processes; return False where another one holds it. Never waits.

    The lock is flock(2)'s: it ends with the process, or when the file is closed. Raises OSError where the file system
    or the system has no such locks.
    """
    if os.name != "posix":
        raise OSError(errno.ENOSYS, "this system has no flock")
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
