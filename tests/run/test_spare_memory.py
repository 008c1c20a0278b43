"""A spare takes memory only where there is enough, cgroups' limits counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.run.programs import vl_run
from tests.run.test_spare import TRAINS, said, warm
from vaultlayer_hf.run.engines.memory import memory_left


def write(folder: Path, **files: str) -> None:
    """Make a cgroup's folder; __ in a name stands for a dot."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_limit_above_counts(tmp_path) -> None:
    """Of a cgroup and those above it; files that were read count as free, since the kernel drops them."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    write(
        root / "a", memory__max="1000000\n", memory__current="900000\n", memory__stat="inactive_file 50000\n"
    )
    write(root / "a" / "b", memory__max="max\n", memory__current="10\n", memory__stat="inactive_file 0\n")
    own.write_text("0::/a/b\n")
    assert memory_left(root, own) == 150_000


def test_the_older_kind_of_cgroup_counts_too(tmp_path) -> None:
    """With a hierarchy of its own for memory."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    write(
        root / "memory" / "job",
        memory__limit_in_bytes="500000\n",
        memory__usage_in_bytes="450000\n",
        memory__stat="total_inactive_file 1000\n",
    )
    own.write_text("4:memory:/job\n1:cpu:/\n0::/\n")
    assert memory_left(root, own) == 51_000


def test_a_container_finds_its_limit_at_the_mounts_root(tmp_path) -> None:
    """Where the path is the host's, and what is mounted begins with the container's own cgroup."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    write(root, memory__max="70000\n", memory__current="20000\n", memory__stat="inactive_file 0\n")
    own.write_text("0::/kubepods/pod1\n")
    assert memory_left(root, own) == 50_000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_no_spare_is_started_where_memory_is_short(tmp_path) -> None:
    """In a cgroup with less than a spare is started with, restarts are cold, and it is said."""
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"vl-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(900 * 2**20))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        script = f"open('{group}/cgroup.procs', 'w').write(str(__import__('os').getppid()))\n" + TRAINS
        ran = vl_run(tmp_path, script=script + "train_a_step('of memory are left')\n", spare=True)
        assert (ran.code, warm(ran)) == (0, [False, False])
        assert ["one is started with" in text for text in said(ran)] == [True]
    finally:
        group.rmdir()
