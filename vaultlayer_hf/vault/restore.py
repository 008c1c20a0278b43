"""Restore: bring a committed checkpoint onto the local disk, verified, or not at all.

Into a temporary folder first; every digest is checked while the bytes stream; files and folders are
flushed; one rename makes the checkpoint appear. Ranges are fetched in parallel and taken in order, so one
pass does the writing and the hashing, in memory bounded by CHUNK * concurrency.
"""

from __future__ import annotations

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

from vaultlayer_hf import files
from vaultlayer_hf.digest import Digest, digest_file
from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError, ResumeError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.manifest import FileEntry, Manifest
from vaultlayer_hf.vault.snapshot import LOCAL

CHUNK = 8 * 2**20
"""Bytes of one ranged read."""
_OLDER = 60.0
"""Seconds by which a restored folder is made older than now: see ``set_age``."""


@dataclass(frozen=True)
class Range:
    """A piece of a file that one request fetches."""

    entry: FileEntry
    start: int
    length: int


def download(
    store: Store,
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
    with _fetcher(store, folder, concurrency) as fetch:
        for entry in entries:
            path = target / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            open(path, "xb").close()
        pieces = fetch(entries)
        for entry in entries:
            digest = Digest()
            with open(target / entry.path, "r+b", buffering=0) as file:
                left = entry.size
                while left > 0:
                    data = next(pieces)
                    digest.update(data)
                    _write_all(file.fileno(), data)
                    left -= len(data)
                    if on_bytes is not None:
                        on_bytes(len(data))
                if digest.text() != entry.digest:
                    raise CorruptError(
                        f"{folder}/{entry.path}: its content doesn't have the digest in its manifest"
                    )
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


def restore(
    store: Store,
    folder: str,
    manifest: Manifest,
    final: Path,
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> int:
    """Bring a checkpoint to ``final`` and return how many bytes came from the store.

    Files that lie at ``final`` with the right digest are used instead of a download. ``finish`` may change
    the folder before it appears. What was at ``final`` before is replaced.

    Raises CorruptError, StoreError, ResumeError (no space), OSError; ``final`` is untouched then.
    """
    staging = final.parent / LOCAL / f"restore-{uuid.uuid4().hex}"
    try:
        reused = _reuse_local(manifest, final, staging, on_bytes)
        wanted = [entry for entry in manifest.files if entry.path not in reused]
        _check_space(store, staging, wanted, folder)
        download(store, folder, wanted, staging, concurrency=concurrency, on_bytes=on_bytes)
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
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="vaultlayer-restore")

    def read(piece: Range) -> memoryview:
        key = f"{folder}/{piece.entry.path}"
        try:
            return store.read_range(key, piece.start, piece.length)
        except ObjectNotFoundError as error:
            raise CorruptError(f"{key}: it is missing") from error
        except StoreError as error:
            if type(error) is not StoreError:  # out of reach or denied: says nothing of the checkpoint
                raise
            raise CorruptError(f"{key}: it can't be read whole: {error.reason}") from error

    def fetch(entries: list[FileEntry]) -> Iterator[memoryview]:
        pieces = (
            Range(entry, start, min(CHUNK, entry.size - start))
            for entry in entries
            for start in range(0, entry.size, CHUNK)
        )
        under_way: deque[Future[memoryview]] = deque()
        for piece in pieces:
            under_way.append(pool.submit(read, piece))
            if len(under_way) >= concurrency:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    try:
        yield fetch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


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
