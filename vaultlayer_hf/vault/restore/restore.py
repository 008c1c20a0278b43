"""Restore: bring a committed checkpoint onto the local disk, verified, or not at all.

Into a temporary folder first, each file from a local copy with the right digest or else by a download (download.py);
files and folders are flushed; one rename makes the checkpoint appear.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import digest_file
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.errors import CorruptError, ResumeError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.manifest import FileEntry, Manifest
from vaultlayer_hf.vault.restore.download import download
from vaultlayer_hf.vault.restore.names import check_names
from vaultlayer_hf.vault.restore.ranges import ByteSource
from vaultlayer_hf.vault.restore.sizes import sizes_of, wrong_size
from vaultlayer_hf.vault.workspace import leave_workspace, workspace

_OLDER = 60.0
"""Seconds by which a restored folder is made older than now: see ``set_age``."""


def restore(
    store: Store,
    folder: str,
    manifest: Manifest,
    final: Path,
    *,
    concurrency: int = 8,
    on_bytes: Callable[[int], None] | None = None,
    finish: Callable[[Path], None] | None = None,
    source: Callable[[Path, set[str]], ByteSource] | None = None,
) -> int:
    """Bring a checkpoint to ``final`` and return how many bytes weren't there.

    Files that lie at ``final`` with the right digest are used instead of a download. ``finish`` may change
    the folder before it appears. ``source``, given the folder that is filled and the files that are in it already,
    returns what to read from; None: the store. What was at ``final`` before is replaced, unless it is the very same.

    Raises CorruptError, StoreError, ResumeError (no space, or names that this disk takes for one), OSError;
    ``final`` is untouched then.
    """
    staging = workspace(final.parent) / f"restore-{uuid.uuid4().hex}"
    try:
        files.make_folder(staging)
        check_names(sorted(manifest.paths), staging)
        reused = _reuse_local(manifest, final, staging, on_bytes)
        wanted = [entry for entry in manifest.files if entry.path not in reused]
        _check_space(store, staging, wanted, folder)
        origin = source(staging, reused) if source is not None else store
        download(origin, folder, wanted, staging, concurrency=concurrency, on_bytes=on_bytes)
        if finish is not None:
            finish(staging)
        if _is_same(staging, final):
            set_age(final, _OLDER)
        else:
            place(staging, final)
    finally:
        files.remove_tree(staging)
        leave_workspace(final.parent)
    return sum(entry.size for entry in wanted)


def _is_same(staging: Path, final: Path) -> bool:
    """Tell whether a folder holds the very files of another one: to flush and rename those would hold up a restart."""
    return not final.is_symlink() and _inodes(staging) == _inodes(final)


def _inodes(folder: Path) -> dict[str, int]:
    """Return the inodes of what lies below a folder by its path; 0 for a folder."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(root, name)
            plain = name in folders and not os.path.islink(path)
            found[os.path.relpath(path, folder)] = 0 if plain else os.lstat(path).st_ino
    return found


def place(staging: Path, final: Path) -> None:
    """Flush a finished folder and make it appear at ``final`` by renames; what was there is removed after."""
    for root, _, names in os.walk(staging):
        for name in names:
            files.fsync_file(Path(root) / name)
        files.fsync_folder(Path(root))
    set_age(staging, _OLDER)
    old = staging.with_name(f"old-{uuid.uuid4().hex}")
    files.make_folder(final.parent)
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


def _reuse_local(
    manifest: Manifest, final: Path, staging: Path, on_bytes: Callable[[int], None] | None
) -> set[str]:
    """Give ``staging`` the local files that have the right digests; return their paths.

    A file is taken first and digested after: what is believed is what will be in place. One that is reached
    through a link belongs to somebody else and isn't shared.
    """
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
                files.remove_file(target)
                continue
        except OSError:
            files.remove_file(target)
            continue
        reused.add(entry.path)
        if on_bytes is not None:
            on_bytes(entry.size)
    return reused


def _check_space(store: Store, folder: Path, wanted: list[FileEntry], name: str) -> None:
    needed, free = sum(entry.size for entry in wanted), shutil.disk_usage(folder).free
    if needed > free:
        sizes = sizes_of(store, name)  # what isn't there needs no space
        for entry in wanted:
            if problem := wrong_size(sizes, name, entry):
                raise CorruptError(problem)
        raise ResumeError(
            f"{name} needs {size_text(needed)} and {folder.parent} has {size_text(free)} free: "
            "free some space or choose another output_dir"
        )
