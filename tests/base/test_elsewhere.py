"""Reading a vault on a system that has little of POSIX, played by a process from which it is taken away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import ROOT

ELSEWHERE = """
import ctypes, os, sys

for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "pread", "pwrite", "preadv", "pwritev",
             "copy_file_range", "posix_fadvise", "register_at_fork", "fork", "POSIX_FADV_SEQUENTIAL"):
    if hasattr(os, name):
        delattr(os, name)

class CDLL(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = CDLL
"""
READ = """
from vaultlayer_hf import open_vault
with open_vault(sys.argv[1]) as vault:
    commits = list(vault.checkpoints())
    assert all(vault.verify(commit).ok for commit in commits)
    print([commit.step for commit in commits])
"""


def test_a_vault_is_read_without_posix(tmp_path: Path) -> None:
    """Neither the import nor listing and verifying a vault needs a call that only POSIX has."""
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE + READ, str(ROOT / "tests" / "vault" / "golden" / "v1")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() != "[]"
