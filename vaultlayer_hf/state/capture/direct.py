"""A file that is written past the page cache, and whose digest is taken on the way."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import Digest

BLOCK = 2**21
"""Bytes of one write. They pass through a buffer of that size, which a core's cache holds: what is written needn't lie
in memory as it lies in the file."""
_UNIT = 4096
"""Bytes of which a disk wants whole multiples, at multiples."""


class DirectFile:
    """A file that grows at its end, past the page cache.

        with DirectFile(path) as file:
            file.write(content)
        file.digest.text()

    Leaving the block flushes it to the disk; what a block that fails has written is left as it is.

    Args:
        path: created, or emptied. Raises OSError, also where the file system has no such way.

    Attributes:
        digest: of what was written.
        size: bytes of it.
    """

    def __init__(self, path: Path) -> None:
        past = getattr(os, "O_DIRECT", None)
        if past is None:
            raise OSError(errno.ENOTSUP, "this system has no way past the page cache", str(path))
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | past, 0o666)
        self._direct = True
        self._block = memoryview(mmap.mmap(-1, BLOCK))
        self._numbers = np.frombuffer(self._block, np.uint8)
        self._filled = 0
        self.digest, self.size = Digest(), 0

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._put()
                files.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes. Raises OSError."""
        numbers = np.frombuffer(content, np.uint8)
        self.size += len(numbers)
        while len(numbers):
            count = min(BLOCK - self._filled, len(numbers))
            # numpy copies without the interpreter's lock; a memoryview would hold it.
            self._numbers[self._filled : self._filled + count] = numbers[:count]
            self._filled += count
            numbers = numbers[count:]
            if self._filled == BLOCK:
                self._put()

    def _put(self) -> None:
        filled, self._filled = self._block[: self._filled], 0
        self.digest.update(filled)
        whole = len(filled) // _UNIT * _UNIT
        self._all(filled[:whole])
        if whole < len(filled):  # the end of the file
            self._through_cache()
            self._all(filled[whole:])

    def _all(self, data: memoryview) -> None:
        while data:
            try:
                count = os.write(self._file, data)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._through_cache()  # of larger units, or part of one was written
                continue
            data = data[count:]

    def _through_cache(self) -> None:
        if self._direct:
            import fcntl  # not on every system, as O_DIRECT isn't

            fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._direct = False
