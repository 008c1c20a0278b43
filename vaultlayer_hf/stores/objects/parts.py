"""Helpers of ObjectStore: how a file is cut into parts."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores.base import Pace

MIB = 1024 * 1024
CHUNK = 8 * MIB
"""Bytes of a part, at least; what is read at a time; what a pace sees per call, at most."""

LARGEST_COPY = 5 * 1024**3
"""Bytes that S3 copies in one request."""
_MOST_PARTS = 9000  # S3's bound is 10 000
_IN_FLIGHT = 96 * MIB  # bytes of parts in memory at a time


class Chunks:
    """An iterator of the chunks of a source; keeps the error that ended it, to be raised as it was."""

    def __init__(
        self, operation: str, key: str, size: int, read: Callable[[int], bytes | memoryview]
    ) -> None:
        self.size = size
        self.error: BaseException | None = None
        self._operation, self._key, self._read = operation, key, read
        self._left = size

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes | memoryview:
        if self._left <= 0:
            raise StopIteration
        try:
            data = self._read(min(CHUNK, self._left))
            if not data:
                have = self.size - self._left
                reason = f"the source has {have} bytes, {self.size} were expected"
                raise StoreError(self._operation, self._key, reason)
        except BaseException as error:
            self.error = error
            raise
        self._left -= len(data)
        return data


@contextlib.contextmanager
def file_chunks(key: str, source: Path, size: int, pace: Pace | None) -> Iterator[Chunks]:
    """Open a local file to be uploaded and hand on its first ``size`` bytes in chunks, each announced to ``pace``.

    Raises StoreError, also while chunks are read, where the file can't be read.
    """

    def unreadable(error: OSError) -> StoreError:
        reason = (error.strerror or str(error)).lower()
        return StoreError("upload", key, f"can't read the local file {source}: {reason}")

    try:
        file = open(source, "rb", buffering=0)  # noqa: SIM115  closed below
    except OSError as error:
        raise unreadable(error) from error

    def read(length: int) -> bytes:
        if pace is not None:
            pace(length)
        try:
            return file.read(length)
        except OSError as error:
            raise unreadable(error) from error

    with file:
        yield Chunks("upload", key, size, read)


@contextlib.contextmanager
def ahead(size: int, read_range: Callable[[int, int], memoryview]) -> Iterator[Callable[[int], memoryview]]:
    """Give a function that returns the next chunk of ``size`` bytes, with a few under way ahead of it."""
    starts = deque(range(0, size, CHUNK))
    coming: deque[Future[memoryview]] = deque()
    with ThreadPoolExecutor(4, "vaultlayer-copy") as pool:

        def read(_: int) -> memoryview:
            while starts and len(coming) < 4:
                start = starts.popleft()
                coming.append(pool.submit(read_range, start, min(CHUNK, size - start)))
            return coming.popleft().result()

        yield read


def part_plan(size: int, concurrency: int) -> tuple[int, int]:
    """Return bytes per part and parts at a time for a file of ``size`` bytes.

    Parts are multiples of 8 MiB, fewer than 10 000, and together stay below about 100 MB in memory (a file
    of more than 280 GB needs parts so large that a single one is sent at a time).
    """
    part = CHUNK * max(1, -(-size // (_MOST_PARTS * CHUNK)))
    return part, max(1, min(concurrency, _IN_FLIGHT // part - 2))
