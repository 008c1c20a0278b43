"""A disk that is full at a save, or fails otherwise: told from mistakes, said, and relieved of what the vault holds.

A library that writes a file turns ENOSPC into an error of its own: torch raises RuntimeError("iostream error") whatever
the cause, safetensors an error that only quotes the system. So the disk itself is asked, too.

What a run may give up without loss are its checkpoints that are in the vault: a start restores them from there. Those
that wait for upload exist nowhere else and stay.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.text import error_text, size_text
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.retention.tidy import clear_trash
from vaultlayer_hf.vault.snapshot import LOCAL

_NEARLY_NONE = 64 * 1024
"""Bytes: with less than this left, an error while writing is taken for the disk's being full."""
_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large|iostream error")
"""What libraries say that don't raise an OSError; the last is all that torch says."""

_FAILING = {
    getattr(errno, name)
    for name in ("EROFS", "EIO", "EMFILE", "ENFILE", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EREMOTEIO")
    if hasattr(errno, name)
}
"""A file system that has become read-only, a disk that fails, too many open files, a network mount that is gone."""
_FAILING_WORDS = re.compile(r"Read-only file system|Input/output error|Too many open files|Stale file handle")


def is_full(error: BaseException, folder: Path) -> bool:
    """Tell whether writing below ``folder`` failed because there was no space, or no quota, left."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in files.FULL:
            return True
        if isinstance(found, Exception) and _WORDS.search(error_text(found)):
            return True
        found = found.__cause__ or found.__context__
    return _free(folder) < _NEARLY_NONE


def is_disk_trouble(error: BaseException, folder: Path) -> bool:
    """Tell whether writing below ``folder`` failed because of the disk or the system, not of what was to be written.

    That it is full is one such cause. No other save of the same files is known to fail, so the training needn't end.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _FAILING:
            return True
        if isinstance(found, Exception) and _FAILING_WORDS.search(str(found)):
            return True
        found = found.__cause__ or found.__context__
    return is_full(error, folder)


def make_room(session: Session, committed: Iterable[Commit], keep: Collection[int] = ()) -> int:
    """Give up local copies of checkpoints that the vault holds, oldest first; return how many bytes became free.

    As many go as the next checkpoint needs, where its size is known. On leaders, on the training thread.

    Args:
        session: whose disk it is.
        committed: what the vault holds, as rank 0 knows it.
        keep: steps whose folders stay.
    """
    before = _free(session.output_dir)
    clear_trash(session.output_dir)
    # A tenth more than the last one took: optimizers make their states at the first steps.
    enough = session.part_bytes * 11 // 10 if session.part_bytes else None
    for commit in sorted(committed, key=lambda commit: commit.number):
        if enough is not None and _free(session.output_dir) >= enough:
            break
        # The snapshot shares its blocks with the folder: they are free once both are gone.
        if commit.token == session.entered.token:
            for snapshot in session.snapshots.glob(f"{commit.seq}-*"):
                files.remove_tree(snapshot)
        if commit.step not in keep:
            files.remove_tree(session.output_dir / f"checkpoint-{commit.step}")
    return max(0, _free(session.output_dir) - before)


def freed_text(session: Session, again: str) -> str:
    """Return in words what ``make_room`` has done; ``again``: what is done once more."""
    return (
        f"the disk of {session.output_dir} is full: local copies of checkpoints that {session.address.uri} holds "
        f"were removed, and this one is {again} again. That is done whenever it is full, and said once: "
        "save_total_limit, or local_keep_last=1, leaves fewer there"
    )


def what_fills(output_dir: Path) -> str:
    """Return in words what takes the space of the disk under ``output_dir``."""
    try:
        usage = shutil.disk_usage(_existing(output_dir))
    except OSError as error:
        return f"the disk of {output_dir} can't be asked: {error}"
    seen: set[tuple[int, int]] = set()
    waiting = sum(_sizes(output_dir / LOCAL, seen))
    ours = sum(_sizes(output_dir, seen)) + waiting
    return (
        f"the disk of {output_dir} has {size_text(usage.free)} free of {size_text(usage.total)}: {size_text(ours)} are "
        f"in this folder, {size_text(waiting)} of it in snapshots for the upload; "
        f"{size_text(max(0, usage.used - ours))} are elsewhere"
    )


def _sizes(folder: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """Yield the bytes on the disk of each file below a folder; files in ``seen`` are passed over, others added."""
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(os.path.join(root, name))
            except OSError:  # the upload thread removes some meanwhile
                continue
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                yield stat.st_blocks * 512


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(_existing(folder)).free
    except OSError:
        return _NEARLY_NONE


def _existing(folder: Path) -> Path:
    """Return the nearest folder above that is there: it lies on the same disk."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
