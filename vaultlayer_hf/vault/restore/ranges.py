"""Ranges: large files are fetched by ranged reads in parallel and taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, StoreError
from vaultlayer_hf.stores.base import Take
from vaultlayer_hf.vault.manifest import FileEntry

_P = TypeVar("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Range:
    """A piece of a file that one request fetches."""

    entry: FileEntry
    start: int
    length: int


class ByteSource(Protocol):
    """What a restore reads from: a store, or something with other ways to the same bytes."""

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        """As ``Store.read_pieces``."""


def ranges_of(entries: Iterable[FileEntry], length: int) -> Iterator[Range]:
    """Yield the ranges of files, each of ``length`` bytes but for a file's last."""
    for entry in entries:
        for start in range(0, entry.size, length):
            yield Range(entry, start, min(length, entry.size - start))


def in_order(
    pool: ThreadPoolExecutor, action: Callable[[_P], _T], pieces: Iterable[_P], ahead: int
) -> Iterator[_T]:
    """Yield ``action`` of each piece, in order, with up to ``ahead`` of them begun."""
    under_way: deque[Future[_T]] = deque()
    for piece in pieces:
        under_way.append(pool.submit(action, piece))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


@contextmanager
def threads(count: int, name: str = "vaultlayer-restore") -> Iterator[ThreadPoolExecutor]:
    """Give threads that are gone at the end, with what waited for them."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


@contextmanager
def reasons(key: str) -> Iterator[None]:
    """Turn errors that say something of an object into CorruptError; those of the store pass."""
    try:
        yield
    except ObjectNotFoundError as error:
        raise CorruptError(f"{key}: it is missing") from error
    except StoreError as error:
        if type(error) is not StoreError:  # out of reach or denied: says nothing of the checkpoint
            raise
        raise CorruptError(f"{key}: it can't be read whole: {error.reason}") from error
