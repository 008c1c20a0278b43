"""Reading a vault on a system that has little of POSIX, played by a process from which it is taken away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import ROOT

ELSEWHERE = """
import ctypes, os, pathlib, psutil, signal, subprocess, sys, tempfile  # these have ways of their own there

for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "pread", "pwrite", "preadv", "pwritev", "fork",
             "copy_file_range", "posix_fadvise", "register_at_fork", "POSIX_FADV_SEQUENTIAL", "killpg", "getpgid",
             "setsid", "setpgid", "getuid", "geteuid", "getgid", "getegid", "waitid", "WNOHANG", "nice", "setpriority",
             "sched_getaffinity", "chown", "fchown", "fchmod", "mkfifo", "sysconf", "fdatasync"):
    if hasattr(os, name):
        delattr(os, name)
kept = ("SIGTERM", "SIGINT", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN")
for name in list(vars(signal)):
    if name.startswith("SIG") and name not in kept or name in ("pthread_sigmask", "setitimer", "alarm", "pthread_kill"):
        delattr(signal, name)
os.name = "elsewhere"

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


COMMANDS = """
import shutil, typer.testing
from vaultlayer_hf.cli import app
shutil.copytree(sys.argv[1], "vault")
for line in sys.argv[2:]:
    done = typer.testing.CliRunner().invoke(app, line.split())
    print(line, done.exit_code, " ".join(done.output.split()), sep="|")
"""
LOOKING = (
    "ls vault", "show vault", "why vault", "verify vault", "diff vault vault", "pull vault out", "pin vault",
    "status vault", "logs vault", "prune vault --dry-run", "copy vault other", "archive vault", "archive vault --undo",
    "doctor vault --model 1MB", "--help",
)  # fmt: skip


def _elsewhere(script: str, folder: Path, *arguments: str) -> str:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            ELSEWHERE + script,
            str(ROOT / "tests" / "vault" / "golden" / "v1"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_vault_is_read_without_posix(tmp_path: Path) -> None:
    """Neither the import nor listing and verifying a vault needs a call that only POSIX has."""
    assert _elsewhere(READ, tmp_path).strip() != "[]"


def test_the_commands_that_look_work_without_posix(tmp_path: Path) -> None:
    """All commands but those that train work there; `vl run` says in one sentence what it needs, and what works."""
    told = _elsewhere(COMMANDS, tmp_path, *LOOKING, "run train.py").splitlines()
    ended = {line: int(code) for line, code, _ in (one.split("|", 2) for one in told)}
    assert ended == dict.fromkeys(LOOKING, 0) | {"run train.py": 2}
    assert "vl run needs Linux or macOS" in told[-1]
    assert "the commands that look at vaults work without" in told[-1]
