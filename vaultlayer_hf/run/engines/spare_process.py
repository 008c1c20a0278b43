"""One spare interpreter: a process that imports what it is told to, waits, and becomes an attempt when it is told to.

It is started with the command of the attempt, and with an environment variable by which Python's start stops before
the script is read (inside/startup/vaultlayer_preload.py). The two talk over a socket, in Python literals, one a line:

    it to us    {"ready": True, "modules", "seconds"}     everything is imported
                {"cut", "reason"}                         it has ended before this item of the record
                {"failed"}                                it has ended by an error of ours
                {"gone": True} or {"reason"}              it is an attempt now; or it has ended, and why it can't be one
    we to it    {"environment"}                           become an attempt with this environment, once all is imported
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from vaultlayer_hf.run.engines import processes
from vaultlayer_hf.run.engines.worked import Worked
from vaultlayer_hf.run.imports import SPARE_VARIABLE, Item

_ANSWERS = 5.0
"""Seconds that it may take to say that it goes."""
_LEAST = 1.0
"""Seconds of work, at least, that it is given to come to the end of its imports."""
DEARER = 1.15
"""How much longer the same imports take in a spare, which keeps what each has changed, than in a cold start: 1.02 times
as measured (0.93 to 1.15)."""
_SHARE = 3
"""A spare that rests works a third of the time."""
_LOWEST = 19
_CAP_SYS_NICE = 23


class SpareProcess:
    """A process that imports or waits: at the lowest priority where that can be taken back, else a third of the time.

    It rests by itself: stopped by a signal it would stay behind for ever where `vl run` is killed.

    Args:
        command: what an attempt runs.
        environment: of an attempt.
        record: what to import.
        ranks: path of a socket. It then never becomes an attempt, but forks a rank for each that asks there.
        ignored: the signals that it ignores, as ``processes.start`` has it.

    Attributes:
        process: it, with pipes for what it will say as an attempt.
        environment: that it was started with.
        ready: it has imported everything.
        took: seconds of work (worked.py) that this has cost; 0 until it is ready.

    Raises OSError where it can't be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        record: Sequence[Item],
        *,
        ranks: str = "",
        ignored: int | None = None,
    ) -> None:
        self._line, its = socket.socketpair()
        instructions = os.memfd_create("vl-spare")
        self._rests = not _may_raise_priority()
        try:
            os.write(instructions, ascii([*record, *([("t", None)] if self._rests else [])]).encode())
            os.lseek(instructions, 0, os.SEEK_SET)
            handles = ",".join([str(its.fileno()), str(instructions), *([ranks] if ranks else [])])
            self.process = processes.start(
                command,
                {**environment, SPARE_VARIABLE: handles},
                pass_fds=(its.fileno(), instructions),
                ignored=ignored,
            )
        except OSError:
            self._line.close()
            raise
        finally:
            its.close()
            os.close(instructions)
        self.environment = dict(environment)
        self.ready, self.took = False, 0.0
        self._worked = Worked(self.process.pid)
        self._data, self._closed = bytearray(), False
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        _write(self._oom_score, "1000")  # what the kernel ends first
        if not self._rests:
            _set_priority(self.process.pid, _LOWEST)

    @property
    def memory(self) -> int:
        """Bytes that are its alone; 0 where it is gone."""
        try:
            return int(psutil.Process(self.process.pid).memory_full_info().uss)
        except psutil.Error:
            return 0

    @property
    def worked(self) -> float:
        """Seconds of work that it has done so far, before its turn."""
        return self._worked.seconds() / (_SHARE if self._rests else 1)

    def has_come_far(self, needed: float) -> bool:
        """Tell whether what it has left to do is less than a cold start would take for all of it.

        ``needed``: seconds of work that it takes to be ready.
        """
        return self.ready or self.worked >= needed * (1 - 1 / DEARER)

    def note_ready(self) -> None:
        """Note that it has said so."""
        if not self.ready:
            self.ready, self.took = True, self.worked

    def messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return what it has said, after at most these seconds of waiting for the first of it."""
        deadline = time.monotonic() + seconds
        while True:
            found, _, _ = select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))
            try:
                got = self._line.recv(65536) if found else b""
            except OSError:
                got = b""
            self._closed = self._closed or bool(found and not got)
            self._data += got
            *lines, rest = bytes(self._data).split(b"\n")
            if lines or not got:  # whole lines; or the time is over; or it has closed its end
                self._data = bytearray(rest)
                return [ast.literal_eval(line.decode()) for line in lines]

    def become_attempt(self, environment: Mapping[str, str], needed: float) -> str:
        """Have it go on into the script; return why it can't, or nothing.

        Args:
            environment: of the attempt.
            needed: seconds of work that it takes to be ready. One that has worked for longer is given up.
        """
        # It may have been ready for some time, and have said so since somebody last listened.
        left, working = max(_LEAST, needed - self.worked), Worked(self.process.pid)
        _set_priority(self.process.pid, self._nice)
        _write(self._oom_score, _read(Path("/proc/self/oom_score_adj")))
        try:  # at once, so that it rests no more
            self._line.settimeout(_ANSWERS)
            self._line.sendall(ascii({"environment": dict(environment)}).encode() + b"\n")
        except OSError:
            return "the interpreter that was kept ready has ended"
        deadline = time.monotonic() + _ANSWERS
        while (rest := deadline - time.monotonic() if self.ready else left - working.seconds()) > 0:
            for message in self.messages(rest):
                if message.get("gone"):
                    self._line.close()
                    return ""
                if "ready" not in message:
                    return str(message.get("failed") or message["reason"])
                self.ready, deadline = True, time.monotonic() + _ANSWERS
            if self._closed:
                return "the interpreter that was kept ready has ended"
        return "the interpreter that was kept ready " + (
            "doesn't answer" if self.ready else "doesn't come to the end of its imports"
        )

    def end(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self._line.close()

    @property
    def _oom_score(self) -> Path:
        return Path(f"/proc/{self.process.pid}/oom_score_adj")


def _may_raise_priority() -> bool:
    """Tell whether a priority that was lowered can be raised again, which takes a privilege."""
    status = _read(Path("/proc/self/status"))
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_NICE & 1)


def _set_priority(pid: int, nice: int) -> None:
    """Set the priority of all threads of a process."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)
