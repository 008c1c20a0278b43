"""How much memory is free for a copy of the state."""

from __future__ import annotations

from pathlib import Path

from vaultlayer_hf.state.capture.memory import fits, free_memory


def test_memory_that_is_free(tmp_path: Path) -> None:
    """The least of host, cgroup and the process's own limit counts; a cgroup's file cache is as good as free."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    for folder in (proc / "self", groups / "a" / "b"):
        folder.mkdir(parents=True)
    assert free_memory(tmp_path / "nothing", tmp_path / "nothing") in (
        None,
        free_memory(tmp_path / "no", groups),
    )
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert free_memory(proc, groups) == 8000 * 1024
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    (groups / "a" / "memory.max").write_text("5000000\n")
    (groups / "a" / "memory.current").write_text("4000000\n")
    (groups / "a" / "memory.stat").write_text("anon 100\ninactive_file 300000\nactive_file 200000\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.current").write_text("4000000\n")
    assert free_memory(proc, groups) == 1500000
    assert fits(2**20, None)
    assert fits(2**20, 2**30)
    assert not fits(2**30, 2**30)
    assert not fits(1, 2**20)
