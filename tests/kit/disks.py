"""Small disks: file systems in memory that a test can fill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse import mount, unmount


@contextmanager
def small_disk_at(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of ``size``, such as ``"12m"`` for MiB, at a new folder; skip where that can't be."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    try:
        mount("tmpfs", folder, "tmpfs", 0, f"size={size}")
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    try:
        yield folder
    finally:
        unmount(folder)
