"""MovingStore: a store whose large files are moved by a process of its own, so that training is left alone.

Where there can be no such process (the store can't be opened a second time, the system refuses, no POSIX), or where
it has died or isn't let in, the calling thread does the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from vaultlayer_hf.base.digest import digest_file
from vaultlayer_hf.errors import StoreDeniedError
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, Take, WrappedStore
from vaultlayer_hf.vault.upload.mover.mover import GoneError, Mover

LARGE = 16 * 2**20
"""Bytes from which on a file is moved by the process: less doesn't disturb, and many runs have no such file."""


class MovingStore(WrappedStore):
    """A store that moves large files in another process.

    A pace is told of their bytes in fewer and larger counts, unless ``exact``: of some when they are on their way
    already, of the last ones of a file always before.

    Args:
        inner: the store to use.
        exact: a pace holds uploads to a rate, so it has to be asked before each chunk.
        say: called with a sentence where the process is in trouble.
        sending: a context that each try at an upload runs in.
    """

    def __init__(
        self,
        inner: Store,
        *,
        exact: bool = False,
        say: Callable[[str], None],
        sending: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(inner)
        self._sending = sending
        # A frozen program isn't Python: to start it would start the training once more.
        possible = os.name == "posix" and sys.executable and not getattr(sys, "frozen", False)
        self._mover = Mover(inner.reopen, exact=exact, say=say) if inner.reopen and possible else None

    def digest(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> tuple[str, int]:
        """Return what ``digest.digest_file`` does, with the same errors."""
        size = path.stat().st_size
        if self._mover is not None and size >= LARGE:
            try:
                digest, count = self._mover.ask("digest", (str(path), size), size, on_bytes)
                return digest, count
            except GoneError:
                pass
        return digest_file(path, on_bytes)

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        if self._mover is not None and size >= LARGE:
            try:
                with self._sending():
                    info: ObjectInfo = self._mover.ask("upload", (key, str(source), size), size, pace)
                    return info
            except (GoneError, StoreDeniedError):  # it may be this process alone that is let in
                pass
        with self._sending():
            return self.inner.upload(key, source, size=size, pace=pace)

    def copy(self, source: str, target: str) -> ObjectInfo:
        # Where there are large files the process runs already, for their digests; a copy may stream one through.
        if self._mover is not None and self._mover.running:
            try:
                info: ObjectInfo = self._mover.ask("copy", (source, target), 0, None)
                return info
            except GoneError:
                pass
        return self.inner.copy(source, target)

    def close(self) -> None:
        """End the process, where there is one."""
        if self._mover is not None:
            self._mover.close()

    def read(self, key: str, *, limit: int) -> bytes:
        return self.inner.read(key, limit=limit)

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        return self.inner.read_range(key, start, length)

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        self.inner.read_pieces(key, start, length, take)

    def head(self, key: str) -> ObjectInfo:
        return self.inner.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after=after)

    def create(self, key: str, data: bytes) -> None:
        self.inner.create(key, data)

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)
