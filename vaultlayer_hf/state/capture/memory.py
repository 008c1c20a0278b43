"""How much memory this process may still take: of the host, of its cgroups, and of its own limit."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

MARGIN = 256 * 2**20
"""Bytes that are left free whatever the size: a training's own needs go up and down by more than nothing."""
_SHARE = 0.1
"""Part of what is taken that is left free beside it."""
_NO_LIMIT = 1 << 60
"""Bytes from which on a cgroup's number means that there is no limit: version 1 writes the largest that it has."""


class NoRoomError(Exception):
    """There is too little memory for a copy."""


def fits(size: int, free: int | None) -> bool:
    """Tell whether ``size`` bytes can be taken where ``free`` are free, with something left. Pure.

    Where it isn't known what is free (``None``), it is taken to fit: the system would refuse the memory itself.
    """
    return free is None or size + max(MARGIN, int(size * _SHARE)) <= free


def free_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how many bytes this process may still take; None where the system doesn't say.

    The least of: what the host has available, what each cgroup above this process leaves, and what the process's own
    limits of address space and of data leave. What a cgroup uses as a cache of files counts as free: the
    kernel takes it back.

    Args:
        proc, cgroups: where the kernel tells it.
    """
    found = [*_of_host(proc), *_of_cgroups(proc, cgroups), *_of_process(proc)]
    return max(0, min(found)) if found else None


def _of_host(proc: Path) -> Iterator[int]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read(proc / "meminfo"), re.MULTILINE)
    if match is not None:
        yield int(match[1]) * 1024


def _of_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    for line in _read(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root, names = cgroups, ("memory.max", "memory.current", ("inactive_file", "active_file"))
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            )
        else:
            continue
        # In a container the path is often the host's, which isn't to be seen in here: then its own root is asked.
        folder = root / path.lstrip("/")
        places = [folder, *folder.parents] if folder.is_dir() else [root]
        for place in places[: places.index(root) + 1] if root in places else [root]:
            yield from _of_cgroup(place, *names)


def _of_cgroup(place: Path, limit: str, usage: str, caches: tuple[str, ...]) -> Iterator[int]:
    most, used = _read(place / limit).strip(), _read(place / usage).strip()
    if not most.isdigit() or not used.isdigit() or int(most) >= _NO_LIMIT:
        return
    counts = dict(line.split(" ", 1) for line in _read(place / "memory.stat").splitlines() if " " in line)
    yield int(most) - int(used) + sum(int(counts.get(name, 0)) for name in caches)


def _of_process(proc: Path) -> Iterator[int]:
    if sys.platform == "win32":
        return
    try:
        import resource  # only POSIX has it
    except ImportError:
        return
    pages = _read(proc / "self" / "statm").split()
    # What the kernel counts against each: the whole address space, or what of it can be written to.
    for limit, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and len(pages) > place and pages[place].isdigit():
            yield most - int(pages[place]) * resource.getpagesize()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
