"""How much memory is left to this process: of the machine, and of each cgroup that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

NEEDS = 2**30
"""Bytes of memory that must be left before a spare is started: it takes about 330 MB, and the training may grow."""
SHORT = 300 * 2**20
"""Bytes that are left when a spare is given up: the training needs them more."""
_ROOT = Path("/sys/fs/cgroup")


def memory_left(root: Path = _ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes that can still be had before something is killed for them.

    Args:
        root: where cgroups are mounted.
        own: the file that names this process's.
    """
    left: list[int] = [psutil.virtual_memory().available, *_left_in_cgroups(root, own)]
    return max(0, min(left))


def _left_in_cgroups(root: Path, own: Path) -> Iterator[int]:
    """Yield what each limit leaves, those of the groups above included. Files that were read can be dropped again."""
    for folder in _cgroups(root, own):
        new = (folder / "memory.max").exists()
        names = (
            ("memory.max", "memory.current") if new else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit, used = (_number(folder / name) for name in names)
        if limit is None or used is None:
            continue
        yield (
            limit - used + _cached(folder / "memory.stat", "inactive_file" if new else "total_inactive_file")
        )


def _cgroups(root: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        folder = top / path.lstrip("/")
        # In a container the path may be that of the host; the mount then begins with ours.
        if not folder.is_dir():
            folder = top
        while True:
            yield folder
            if folder == top:
                break
            folder = folder.parent


def _number(path: Path) -> int | None:
    """Return the number that a file holds; None where there is none, or it says ``max``."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached(path: Path, name: str) -> int:
    try:
        words = path.read_text().split()
    except OSError:
        return 0
    return int(words[words.index(name) + 1]) if name in words else 0
