"""A program and all that it starts: none of it outlives the attempt.

torchrun's workers live in sessions of their own, so a process group isn't enough: this process becomes the one to
which orphans fall (PR_SET_CHILD_SUBREAPER, Linux), and its descendants are those to end. Elsewhere the process
group and what psutil finds below it are ended.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # <sys/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_KEPT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
"""Signals that can't be ignored, and those that Python ignores by itself."""


def adopt_orphans() -> None:
    """Have the orphans of what this process starts fall to it, so that they are found."""
    if _libc is not None:
        _libc.prctl(_SUBREAPER, 1, 0, 0, 0)


def _end_with_parent() -> None:
    # SIGTERM, not SIGKILL: a launcher then ends its workers, too.
    if _libc is not None:
        _libc.prctl(_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def _ignore_only(ignored: int) -> None:
    for number in signal.valid_signals() - _KEPT:
        wanted = signal.SIG_IGN if ignored >> (number - 1) & 1 else signal.SIG_DFL
        if signal.getsignal(number) is not wanted:
            signal.signal(number, wanted)


def start(
    command: Sequence[str],
    environment: dict[str, str],
    pass_fds: Sequence[int] = (),
    ignored: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with pipes for what it says. Raises OSError.

    Args:
        command: it.
        environment: its whole environment.
        pass_fds: descriptors that it gets.
        ignored: the signals that it ignores, as /proc/PID/status has them; None: those that this process ignores.
    """

    def begin() -> None:
        if _libc is not None:
            _end_with_parent()
        if ignored is not None:
            _ignore_only(ignored)

    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=pass_fds,
        preexec_fn=begin if _libc is not None or ignored is not None else None,
    )


def sleep_until_ended(pid: int, seconds: float) -> None:
    """Wait for the end of a child that hasn't been waited for, at most these seconds; it stays to be waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or an old one
        time.sleep(seconds)
        return
    try:
        select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def family(keep: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Return all descendants of this process but those in ``keep``; zombies are left out."""
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            if one.pid not in keep and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def end_family(grace: float, keep: frozenset[int] = frozenset()) -> int:
    """End all descendants but those in ``keep``: SIGTERM, after ``grace`` seconds SIGKILL; return how many."""
    found = family(keep)
    if not found:
        return 0
    if grace > 0:
        send(signal.SIGTERM, found)
        deadline = time.monotonic() + grace
        while family(keep) and time.monotonic() < deadline:
            reap(keep)
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while (left := family(keep)) and time.monotonic() < deadline:
        send(signal.SIGKILL, left)  # again and again: what is ended may have started others meanwhile
        reap(keep)
        time.sleep(0.02)
    reap(keep)
    return len(found)


def send(number: int, processes: Sequence[psutil.Process]) -> None:
    """Send a signal to each that is still there."""
    for one in processes:
        try:
            one.send_signal(number)
        except psutil.Error:
            continue


def reap(keep: frozenset[int] = frozenset()) -> None:
    """Collect orphans that have ended, but for the processes in ``keep``, which others wait for."""
    for one in psutil.Process().children():
        if one.pid in keep:
            continue
        try:
            os.waitpid(one.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def oom_kills() -> int:
    """Return how often the kernel has killed for memory in this process's cgroup, or on the host where none is told."""
    for path in _memory_files():
        try:
            words = path.read_text().split()
        except OSError:
            continue
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return 0


def _memory_files() -> list[Path]:
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
        elif "memory" in controllers.split(","):
            found.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
    # In a container the path may be that of the host; the files then lie at the root of the mount.
    roots = [Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")]
    return [*found, *roots, Path("/proc/vmstat")]
