"""Disks: file systems in memory that a test can fill, and folders where nothing can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse import mount, unmount

_READ_ONLY, _REMOUNT, _BIND = 1, 32, 4096
"""Flags of mount(2)."""


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


@contextmanager
def read_only_at(point: Path, folder: Path) -> Iterator[Path]:
    """Show a folder at a new place where nothing can be written, not even by root; skip where that can't be."""
    if os.geteuid() != 0:
        pytest.skip("a read-only mount needs root")
    point.mkdir()
    try:
        mount(str(folder), point, "none", _BIND)
    except OSError as error:
        pytest.skip(f"no folder can be mounted here: {error}")
    try:
        try:
            mount("none", point, "none", _BIND | _REMOUNT | _READ_ONLY)
        except OSError as error:
            pytest.skip(f"no read-only mount can be made here: {error}")
        yield point
    finally:
        unmount(point)
