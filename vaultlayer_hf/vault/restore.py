"""Restore: bring a committed checkpoint onto the local disk, verified, or not at all.

Into a temporary folder first; every digest is checked while the bytes stream; files and folders are
flushed; one rename makes the checkpoint appear. Large ranges are fetched in parallel, each written where it
belongs piece by piece as it comes from the network; the digest follows in order, over what the file now holds
(the page cache still has it), and so covers the writing too. Memory doesn't grow with the files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from vaultlayer_hf import files
from vaultlayer_hf.digest import Digest, digest_file
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, ResumeError, StoreError
from vaultlayer_hf.stores.base import Store, Take
from vaultlayer_hf.vault.manifest import FileEntry, Manifest
from vaultlayer_hf.vault.snapshot import LOCAL

_T = TypeVar("_T")
CHUNK = 8 * 2**20
"""Bytes of one ranged read that is held in memory."""
STRETCH = 32 * 2**20
"""Bytes of one ranged read that goes to the disk: fewer requests, and no copy of any byte in between."""
_OLDER = 60.0
"""Seconds by which a restored folder is made older than now: see ``set_age``."""


@dataclass(frozen=True)
class Range:
    """A piece of a file that one request fetches."""

    entry: FileEntry
    start: int
    length: int


class Source(Protocol):
    """What a restore reads from: a store, or something with other ways to the same bytes."""

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        """As ``Store.read_pieces``."""


def download(
    store: Source,
    folder: str,
    entries: list[FileEntry],
    target: Path,
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Fetch files of a checkpoint into ``target`` and check each digest as the bytes pass.

    Raises CorruptError on any mismatch or missing file, StoreError, OSError.
    """
    for entry in entries:
        path = target / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "xb").close()
    buffer = memoryview(bytearray(CHUNK // 2))
    with _pool(1) as flusher, _pool(concurrency) as pool:
        landed = _in_order(
            pool, lambda piece: _land(store, folder, piece, target), entries, STRETCH, 2 * concurrency
        )
        for entry in entries:
            digest = Digest()
            with open(target / entry.path, "rb", buffering=0) as file:
                while file.tell() < entry.size:
                    end = next(landed)
                    while (left := end - file.tell()) > 0:
                        count = file.readinto(buffer[:left])
                        if not count:
                            raise OSError(errno.EIO, "a file became shorter while it was restored", file.name)
                        digest.update(buffer[:count])
                        if on_bytes is not None:
                            on_bytes(count)
            if digest.text() != entry.digest:
                raise CorruptError(
                    f"{folder}/{entry.path}: its content doesn't have the digest in its manifest"
                )
            flusher.submit(_start_flush, target / entry.path)


def _land(store: Source, folder: str, piece: Range, target: Path) -> int:
    """Fetch a range into its place in a file; return where it ends."""
    with (
        _reasons(f"{folder}/{piece.entry.path}"),
        open(target / piece.entry.path, "r+b", buffering=0) as file,
    ):

        def take(offset: int, data: memoryview) -> None:
            while data:
                count = os.pwrite(file.fileno(), data, offset)
                data, offset = data[count:], offset + count

        store.read_pieces(f"{folder}/{piece.entry.path}", piece.start, piece.length, take)
    return piece.start + piece.length


def _start_flush(path: Path) -> None:
    """Begin to write a file back while others still come; ``place`` makes sure, and tells of errors."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        os.fsync(file.fileno())


def check(
    store: Store,
    folder: str,
    entries: list[FileEntry],
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
) -> list[str]:
    """Stream files of a checkpoint past their digests, keeping nothing; return what is wrong. Raises StoreError."""
    sizes = _sizes(store, folder)
    problems = []
    for entry in entries:
        if problem := _wrong_size(sizes, folder, entry):
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
            problems.append(f"{folder}/{entry.path}: its content doesn't have the digest in its manifest")
    return problems


def check_sizes(store: Store, folder: str, entries: list[FileEntry]) -> list[str]:
    """Return which files are missing or have another size than their manifest says; reads none. Raises StoreError."""
    sizes = _sizes(store, folder)
    return [problem for entry in entries if (problem := _wrong_size(sizes, folder, entry))]


def restore(
    store: Store,
    folder: str,
    manifest: Manifest,
    final: Path,
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
    finish: Callable[[Path], None] | None = None,
    source: Callable[[Path, set[str]], Source] | None = None,
) -> int:
    """Bring a checkpoint to ``final`` and return how many bytes weren't there.

    Files that lie at ``final`` with the right digest are used instead of a download. ``finish`` may change
    the folder before it appears. ``source``, given the folder that is filled and the files that are in it already,
    returns what to read from; None: the store. What was at ``final`` before is replaced.

    Raises CorruptError, StoreError, ResumeError (no space), OSError; ``final`` is untouched then.
    """
    staging = final.parent / LOCAL / f"restore-{uuid.uuid4().hex}"
    try:
        reused = _reuse_local(manifest, final, staging, on_bytes)
        wanted = [entry for entry in manifest.files if entry.path not in reused]
        _check_space(store, staging, wanted, folder)
        origin = source(staging, reused) if source is not None else store
        download(origin, folder, wanted, staging, concurrency=concurrency, on_bytes=on_bytes)
        if finish is not None:
            finish(staging)
        place(staging, final)
    finally:
        files.remove_tree(staging)
    return sum(entry.size for entry in wanted)


def place(staging: Path, final: Path) -> None:
    """Flush a finished folder and make it appear at ``final`` by renames; what was there is removed after."""
    for root, _, names in os.walk(staging):
        for name in names:
            files.fsync_file(Path(root) / name)
        files.fsync_folder(Path(root))
    set_age(staging, _OLDER)
    old = staging.with_name(f"old-{uuid.uuid4().hex}")
    if os.path.lexists(final):
        files.rename(final, old)
    try:
        files.rename(staging, final)
    except BaseException:
        if os.path.lexists(old):
            files.rename(old, final)
        raise
    files.remove_tree(old)


def set_age(folder: Path, seconds: float) -> None:
    """Make a folder's mtime at least ``seconds`` old.

    The Trainer rotates by mtime and counts what is newest as worth keeping: a restored folder must look
    older than any checkpoint that this run will write, and by more than the one second below which the
    Trainer distrusts mtimes and sorts by number.
    """
    stat = folder.stat()
    limit = time.time() - seconds
    if stat.st_mtime > limit:
        os.utime(folder, (limit, limit))


@contextmanager
def _fetcher(
    store: Store, folder: str, concurrency: int
) -> Iterator[Callable[[list[FileEntry]], Iterator[memoryview]]]:
    """Give a function that yields the pieces of files in order, with ``concurrency`` requests under way."""

    def read(piece: Range) -> memoryview:
        key = f"{folder}/{piece.entry.path}"
        with _reasons(key):
            return store.read_range(key, piece.start, piece.length)

    with _pool(concurrency) as pool:
        yield lambda entries: _in_order(pool, read, entries, CHUNK, concurrency)


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that are gone at the end, with what waited for them."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vaultlayer-restore")
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


@contextmanager
def _reasons(key: str) -> Iterator[None]:
    """Turn errors that say something of an object into CorruptError; those of the store pass."""
    try:
        yield
    except ObjectNotFoundError as error:
        raise CorruptError(f"{key}: it is missing") from error
    except StoreError as error:
        if type(error) is not StoreError:  # out of reach or denied: says nothing of the checkpoint
            raise
        raise CorruptError(f"{key}: it can't be read whole: {error.reason}") from error


def _in_order(
    pool: ThreadPoolExecutor, action: Callable[[Range], _T], entries: list[FileEntry], length: int, ahead: int
) -> Iterator[_T]:
    """Yield ``action`` of each range of files, in order, with up to ``ahead`` of them begun."""
    under_way: deque[Future[_T]] = deque()
    for entry in entries:
        for start in range(0, entry.size, length):
            under_way.append(pool.submit(action, Range(entry, start, min(length, entry.size - start))))
            if len(under_way) >= ahead:
                yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _reuse_local(
    manifest: Manifest, final: Path, staging: Path, on_bytes: Callable[[int], None] | None
) -> set[str]:
    """Give ``staging`` the local files that have the right digests; return their paths.

    A file is taken first and digested after: what is believed is what will be in place. One that is reached
    through a link belongs to somebody else and isn't shared.
    """
    files.make_folder(staging)
    home = os.path.join(os.path.realpath(final.parent), final.name)
    reused = set()
    for entry in manifest.files:
        local, target = final / entry.path, staging / entry.path
        try:
            if (
                os.path.realpath(local) != os.path.join(home, entry.path)
                or local.stat().st_size != entry.size
            ):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if not files.link(local, target):
                shutil.copyfile(local, target)
            if digest_file(target) != (entry.digest, entry.size):
                target.unlink()
                continue
        except OSError:
            target.unlink(missing_ok=True)
            continue
        reused.add(entry.path)
        if on_bytes is not None:
            on_bytes(entry.size)
    return reused


def _sizes(store: Store, folder: str) -> dict[str, int]:
    """Return the size of each object below a checkpoint's folder."""
    return {item.key: item.size for item in store.list(f"{folder}/")}


def _wrong_size(sizes: dict[str, int], folder: str, entry: FileEntry) -> str:
    """Return in words how a file's size isn't that of its manifest; empty where it is."""
    key = f"{folder}/{entry.path}"
    if key not in sizes:
        return f"{key}: it is missing"
    return (
        ""
        if sizes[key] == entry.size
        else f"{key}: it has {sizes[key]} bytes, its manifest says {entry.size}"
    )


def _check_space(store: Store, folder: Path, wanted: list[FileEntry], name: str) -> None:
    needed, free = sum(entry.size for entry in wanted), shutil.disk_usage(folder).free
    if needed > free:
        sizes = _sizes(store, name)  # what isn't there needs no space
        for entry in wanted:
            if problem := _wrong_size(sizes, name, entry):
                raise CorruptError(problem)
        raise ResumeError(
            f"{name} needs {needed / 1e9:.2f} GB and {folder.parent} has {free / 1e9:.2f} GB free: "
            "free some space or choose another output_dir"
        )
