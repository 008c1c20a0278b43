"""The spare interpreter of `vl run`, from outside: the next attempt, with its imports done beforehand.

Most of what a restart costs is the start of Python, torch and transformers. So the first attempt notes what it imports
(run/imports.py). Once it has trained a step, its command is started once more, at the lowest priority, as a process
that imports the same and waits before it reads the script (inside/preload.py). When the attempt dies, that process
becomes the next one. Whatever doesn't fit, it is a cold start instead, and that is said.

Only on Linux: elsewhere nothing can be noted in a file that never comes to a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.run.engines import processes
from vaultlayer_hf.run.engines.memory import memory_left
from vaultlayer_hf.run.engines.reach import is_python, why_unreached
from vaultlayer_hf.run.imports import IMPORTS_VARIABLE, SPARE_VARIABLE, Item, is_own_variable, read_record

_NEEDS = 2**30
"""Bytes of memory that must be left before a spare is started: it takes about 400 MB, and the training may grow."""
_SHORT = 300 * 2**20
"""Bytes that are left when a spare is given up: the training needs them more."""
_IMPORTS = 60.0
"""Seconds that a spare whose turn has come may still take to import, at full priority."""
_ANSWERS = 5.0
"""Seconds that it may take to say that it goes."""
_TRIES = 4
"""Spares that may end by themselves while they import, each coming to wait before what ended the one before it."""
_LOWEST = 19
_CAP_SYS_NICE = 23


@dataclass
class _Spare:
    """A process that imports or waits.

    Attributes:
        process: it, with pipes for what it will say as an attempt.
        line: the socket to it.
        environment: that it was started with.
        ready: it has imported everything.
        data: what has come from it and isn't a whole line yet.
    """

    process: subprocess.Popen[bytes]
    line: socket.socket
    environment: Mapping[str, str]
    ready: bool = False
    data: bytearray = field(default_factory=bytearray)


class Spares:
    """Starts the attempts of a run: cold, or out of a spare that is kept beside the attempt before.

    Args:
        command: what each attempt runs.
        notice: called with what somebody should know: a topic and a sentence.
        wanted: keep a spare; else every start is cold.
    """

    def __init__(
        self, command: Sequence[str], notice: Callable[[str, str], None], *, wanted: bool = True
    ) -> None:
        self._command, self._notice = command, notice
        self._off = not wanted or not can_be_spared(command)
        self._record_file = -1 if self._off else os.memfd_create("vl-imports")
        self._record: list[Item] = []
        self._spare: _Spare | None = None
        self._tries = 0
        self._said = False
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._oom_score = _read(Path("/proc/self/oom_score_adj"))
        self.warm = False
        self.killed = 0

    @property
    def pids(self) -> frozenset[int]:
        """Of the spare, which is no part of the attempt that is under way."""
        return frozenset() if self._spare is None else frozenset({self._spare.process.pid})

    def start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start an attempt. ``warm`` tells whether it came out of a spare. Raises OSError."""
        process = self._go(environment)
        self.warm = process is not None
        if process is not None:
            return process
        if not self._off:
            os.ftruncate(self._record_file, 0)
            self._record, self._tries = [], 0
            environment = {**environment, IMPORTS_VARIABLE: f"/proc/{os.getpid()}/fd/{self._record_file}"}
        return processes.start(self._command, environment)

    def watch(self, pid: int, environment: Mapping[str, str], *, trains: bool) -> None:
        """Look after the spare while an attempt runs; start one when the attempt has ``trains``, done its first step.

        Args:
            pid: the attempt's.
            environment: the attempt's, without what is only for the record.
            trains: whether it has done a step.
        """
        if self._off:
            return
        if self._spare is not None:
            self._look()
        elif trains:
            if not self._record:
                size = os.fstat(self._record_file).st_size
                self._record = read_record(os.pread(self._record_file, size, 0), pid)
            if self._record:
                self._start(environment)
            else:
                self.give_up("nothing was noted of what the program imports")

    def give_up(self, reason: str) -> None:
        """Keep no spare any more: the next starts are cold."""
        if not self._off:
            self._off = True
            self._end()
            self._notice("spare", f"no interpreter is kept ready any more, so a restart is cold: {reason}")

    def close(self) -> None:
        """End the spare; the run is over."""
        self._end()
        if self._record_file >= 0:
            os.close(self._record_file)
            self._record_file, self._off = -1, True

    def _start(self, environment: Mapping[str, str]) -> None:
        left = memory_left()
        if left < _NEEDS:
            self.give_up(f"only {size_text(left)} of memory are left, and a spare is started with {size_text(_NEEDS)}")
            return
        ours, its = socket.socketpair()
        instructions = os.memfd_create("vl-spare")
        try:
            os.write(instructions, json.dumps(self._record).encode())
            os.lseek(instructions, 0, os.SEEK_SET)
            process = processes.start(
                self._command,
                {**environment, SPARE_VARIABLE: f"{its.fileno()},{instructions}"},
                pass_fds=(its.fileno(), instructions),
            )
        except OSError as error:
            ours.close()
            self.give_up(str(error))
            return
        finally:
            its.close()
            os.close(instructions)
        ours.setblocking(False)
        self._spare = _Spare(process, ours, dict(environment))
        _write(Path(f"/proc/{process.pid}/oom_score_adj"), "1000")  # what the kernel ends first
        if _may_raise_priority():
            _set_priority(process.pid, _LOWEST)

    def _look(self) -> None:
        """Hear what the spare says, and give it up where memory runs short."""
        spare = self._spare
        assert spare is not None
        for message in self._messages(0.0):
            if message.get("ready"):
                spare.ready = True
                self._say_ready(spare, message)
            elif "cut" in message:
                self._cut(message)
                return
        if spare.process.poll() is not None:
            # The kernel may have ended it for the memory that it had taken: that is no death of the attempt's.
            self.killed += spare.process.returncode == -signal.SIGKILL
            self._end()
            self.give_up("the spare has ended by itself")
        elif (left := memory_left()) < _SHORT:
            self.give_up(f"only {size_text(left)} of memory are left")

    def _say_ready(self, spare: _Spare, message: dict[str, Any]) -> None:
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(spare.process.pid).memory_full_info().uss
            if not self._said:
                self._said = True
                self._notice(
                    "spare",
                    f"an interpreter is kept ready for a quick restart: {message['modules']} modules, "
                    f"{size_text(memory)} of memory (--no-spare: none is kept)",
                )

    def _cut(self, message: dict[str, Any]) -> None:
        self._end()
        self._record = self._record[: message["cut"]]
        self._tries += 1
        if self._tries >= _TRIES or not self._record:
            self.give_up(f"what the program imports can't be imported beforehand: {message['reason']}")

    def _go(self, environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Turn the spare into an attempt; None, and said, where it can't be."""
        spare = self._spare
        if spare is None or self._off:
            return None
        reason = self._why_not(spare, environment)
        if reason:
            self._end()
            self._notice("spare", f"this start is cold: {reason}")
            return None
        self._spare = None
        spare.line.close()
        return spare.process

    def _why_not(self, spare: _Spare, environment: Mapping[str, str]) -> str:
        if without_own(spare.environment) != without_own(environment):
            return "the environment has changed"
        _set_priority(spare.process.pid, self._nice)
        _write(Path(f"/proc/{spare.process.pid}/oom_score_adj"), self._oom_score)
        deadline = time.monotonic() + _IMPORTS
        while not spare.ready:
            found = self._messages(deadline - time.monotonic())
            if not found:
                return "the spare doesn't come to the end of its imports"
            for message in found:
                if "cut" in message:
                    return str(message["reason"])
                spare.ready = spare.ready or bool(message.get("ready"))
        try:
            spare.line.setblocking(True)
            spare.line.settimeout(_ANSWERS)
            spare.line.sendall(json.dumps({"environment": dict(environment)}).encode() + b"\n")
        except OSError:
            return "the spare has ended"
        spare.line.setblocking(False)
        for message in self._messages(_ANSWERS):
            if message.get("gone"):
                return ""
            return str(message.get("reason"))
        return "the spare doesn't answer"

    def _messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return what the spare has said, after at most these seconds of waiting for the first of it."""
        spare = self._spare
        assert spare is not None
        deadline = time.monotonic() + seconds
        while True:
            found, _, _ = select.select([spare.line], [], [], max(0.0, deadline - time.monotonic()))
            try:
                got = spare.line.recv(65536) if found else b""
            except OSError:
                got = b""
            spare.data += got
            lines = bytes(spare.data).split(b"\n")
            if len(lines) > 1 or not got:  # whole lines; or the time is over; or it has closed its end
                spare.data = bytearray(lines[-1])
                return [json.loads(line) for line in lines[:-1]]

    def _end(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        with contextlib.suppress(OSError):
            spare.process.kill()
        spare.process.wait()
        for pipe in (spare.process.stdout, spare.process.stderr):
            if pipe is not None:
                pipe.close()
        spare.line.close()


def can_be_spared(command: Sequence[str]) -> bool:
    """Tell whether a command is Python's own from its first moment: a shell's commands would be run beforehand."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create") or why_unreached(command):
        return False
    return bool(command) and is_python(command[0])


def without_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what `vl run` sets anew for each attempt."""
    return {name: value for name, value in environment.items() if not is_own_variable(name)}


def _may_raise_priority() -> bool:
    """Tell whether a priority that was lowered can be raised again: only with a privilege, or by a limit of its own."""
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
