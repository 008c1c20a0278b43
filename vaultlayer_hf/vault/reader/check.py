"""Check: read a committed checkpoint past its digests, or only its sizes; keep nothing and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vaultlayer_hf.base.digest import Digest
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.manifest import FileEntry
from vaultlayer_hf.vault.restore.ranges import Range, in_order, ranges_of, reasons, threads
from vaultlayer_hf.vault.restore.sizes import sizes_of, wrong_size

CHUNK = 8 * 2**20
"""Bytes of one ranged read."""


def check(
    store: Store,
    folder: str,
    entries: list[FileEntry],
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
) -> list[str]:
    """Stream files of a checkpoint past their digests, keeping nothing; return what is wrong. Raises StoreError."""
    sizes = sizes_of(store, folder)
    problems = []
    for entry in entries:
        if problem := wrong_size(sizes, folder, entry):
            problems.append(problem)
            continue
        digest = Digest()
        try:
            with _fetcher(store, folder, concurrency) as fetch:
                for data in fetch([entry]):
                    digest.update(data)
                    if on_bytes is not None:
                        on_bytes(len(data))
        except CorruptError as error:
            problems.append(str(error))
            continue
        if digest.text() != entry.digest:
            problems.append(
                f"{folder}/{entry.path}: its content isn't what was uploaded (its digest isn't the manifest's)"
            )
    return problems


def check_sizes(store: Store, folder: str, entries: list[FileEntry]) -> list[str]:
    """Return which files are missing or have another size than their manifest says; reads none. Raises StoreError."""
    sizes = sizes_of(store, folder)
    return [problem for entry in entries if (problem := wrong_size(sizes, folder, entry))]


@contextmanager
def _fetcher(
    store: Store, folder: str, concurrency: int
) -> Iterator[Callable[[list[FileEntry]], Iterator[memoryview]]]:
    """Give a function that yields the pieces of files in order, with ``concurrency`` requests under way."""

    def read(piece: Range) -> memoryview:
        key = f"{folder}/{piece.entry.path}"
        with reasons(key):
            return store.read_range(key, piece.start, piece.length)

    with threads(concurrency) as pool:
        yield lambda entries: in_order(pool, read, ranges_of(entries, CHUNK), concurrency)
