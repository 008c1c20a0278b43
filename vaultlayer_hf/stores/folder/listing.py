"""What lies in a vault's folder, as objects in the order of their keys."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from vaultlayer_hf.stores.base import ObjectInfo
from vaultlayer_hf.stores.folder.local import object_info

TEMPORARY = ".tmp"
"""The folder below the root for what isn't published yet; no key may lie in it, no listing shows it."""


def walk(folder: Path, prefix: str, after: bytes, absent: Callable[[], None]) -> Iterator[ObjectInfo]:
    """Yield what lies below a folder, by key: a folder sorts as its name with a slash, as on S3.

    The names of one folder and of those above it are in memory, never those of all. Raises OSError.

    Args:
        folder: where to begin.
        prefix: what the keys there begin with; empty, or with a slash at its end.
        after: only greater keys, as bytes.
        absent: called where a folder isn't there; may raise, where that means more than an empty listing.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        absent()
        return
    for name, entry in sorted(found, key=lambda pair: os.fsencode(pair[0])):
        key = prefix + name
        if name.endswith("/"):
            raw = os.fsencode(key)
            passed = raw < after and not after.startswith(raw)
            if key != f"{TEMPORARY}/" and not passed:
                yield from walk(Path(entry.path), key, after, absent)
        elif os.fsencode(key) > after:
            with contextlib.suppress(FileNotFoundError):  # deleted since
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(info.st_mode):
                    yield object_info(key, info)
