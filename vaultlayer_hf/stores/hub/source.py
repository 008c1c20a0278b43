"""A local file as huggingface_hub's client reads it: its first bytes only, each announced to a pace once."""

from __future__ import annotations

import io
import os
from pathlib import Path

from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores.base import Pace


class PacedFile(io.BufferedIOBase):
    """The first ``size`` bytes of a local file, for reading; to be closed.

    The client reads a file several times: for its digest, when it sends it, and again where it has to repeat that.
    Bytes are announced once, and only from ``pace_with`` on.

    Attributes:
        error: what ended a read, to be raised as it was: clients wrap it.

    Raises StoreError where the file can't be read or is shorter.
    """

    def __init__(self, key: str, source: Path, size: int) -> None:
        self.error: BaseException | None = None
        self._key, self._source, self._size = key, source, size
        self._at = self._told = 0
        self._pace: Pace | None = None
        try:
            self._file = open(source, "rb", buffering=0)  # noqa: SIM115  closed by close()
            have = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._unreadable(error) from error
        if have < size:
            self._file.close()
            raise StoreError("upload", key, f"the source has {have} bytes, {size} were expected")

    def pace_with(self, pace: Pace | None) -> None:
        """Announce what is read from here on."""
        self._pace = pace

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if self.error is not None:
            raise self.error
        new = self._at + count - self._told
        try:
            if self._pace is not None and new > 0:
                self._pace(new)
                self._told += new
            data = self._take(count)
        except BaseException as error:
            self.error = error
            raise
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = self._file.seek(max(0, base + offset))
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _take(self, count: int) -> bytes:
        try:
            data = self._file.read(count) if count else b""
        except OSError as error:
            raise self._unreadable(error) from error
        if count and not data:
            raise StoreError("upload", self._key, f"the source ends before its {self._size} bytes")
        return data

    def _unreadable(self, error: OSError) -> StoreError:
        reason = (error.strerror or str(error)).lower()
        return StoreError("upload", self._key, f"can't read the local file {self._source}: {reason}")
