"""The starts of a run's attempts: cold, or out of a spare interpreter that has done the imports beforehand.

Most of what a restart costs is the start of Python, torch and transformers. So the first attempt notes what it imports
(run/imports.py). Once it has trained a step, its command is started once more, as a process that imports the same and
waits before it reads the script (spare_process.py). When the attempt dies, that process becomes the next one, though it
may have to import a little more. Whatever doesn't fit, or has less of this behind it than a cold start would be quicker
by, it is a cold start instead, and that is said.

Only on Linux: elsewhere nothing can be noted in a file that never comes to a disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.run.engines import processes
from vaultlayer_hf.run.engines.memory import NEEDS, SHORT, memory_left
from vaultlayer_hf.run.engines.rank_spares import RankSpares
from vaultlayer_hf.run.engines.reach import is_python, why_unreached
from vaultlayer_hf.run.engines.spare_process import DEARER, SpareProcess
from vaultlayer_hf.run.engines.worked import Worked
from vaultlayer_hf.run.imports import IMPORTS_VARIABLE, TRIES, Item, is_own_variable, read_record, why_stopped

_LEAST = 1.0
"""Seconds of work, at least, that a spare is believed to need: less can't be told from the start of Python."""
_SCATTER = 1.25
"""How much more than the one before it a spare may need."""


class Spares:
    """Starts the attempts of a run, and keeps a spare beside each that trains.

    Args:
        command: what each attempt runs.
        notice: called with what somebody should know: a topic and a sentence.
        wanted: keep a spare; else every start is cold.

    Attributes:
        warm: the last start came out of a spare.
        killed: spares that the kernel has ended for memory.
    """

    def __init__(
        self, command: Sequence[str], notice: Callable[[str, str], None], *, wanted: bool = True
    ) -> None:
        self._command, self._notice = command, notice
        self._off = not wanted or not can_be_spared(command)
        self._unsaid = wanted and self._off
        self._starts = 0
        self._stopped = ""
        can = wanted and sys.platform == "linux" and hasattr(os, "memfd_create")
        self._record_file = os.memfd_create("vl-imports") if can else -1
        self._ranks = RankSpares(notice) if can else None
        self._learned = False
        self._record: list[Item] = []
        self._spare: SpareProcess | None = None
        self._tries = 0
        self._said = False
        self._cold = ""  # the reason that was said last
        self._oom_kills = 0
        self._needed = _LEAST  # seconds of work that a spare takes to be ready
        self._cold_start: Worked | None = None  # of an attempt that started cold and hasn't trained yet
        self._image: int | None = None  # of the attempt's process; None once it has been looked at
        self.warm = False
        self.killed = 0

    @property
    def pids(self) -> frozenset[int]:
        """Of the spare and of the ranks' template, which are no part of the attempt that is under way."""
        own = frozenset() if self._spare is None else frozenset({self._spare.process.pid})
        return own if self._ranks is None else own | self._ranks.pids

    def start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start an attempt. ``warm`` tells whether it came out of a spare. Raises OSError."""
        environment = {**environment, **(self._ranks.variables if self._ranks is not None else {})}
        process = self._start_warm(environment)
        self.warm = process is not None
        self._starts += 1
        if process is not None:
            self._image = _image_of(process.pid)
            return process
        records = self._record_file >= 0 and self._spare is None
        if records:
            os.ftruncate(self._record_file, 0)
            self._record, self._tries = [], 0
            environment = {
                **environment,
                IMPORTS_VARIABLE: f"/proc/{os.getpid()}/fd/{self._record_file}",
            }
        process = processes.start(self._command, environment)
        self._cold_start = Worked(process.pid) if records else None
        self._image = _image_of(process.pid)
        return process

    def watch(self, pid: int, environment: Mapping[str, str], *, trains: bool) -> None:
        """Look after the spare while an attempt runs; start one when the attempt ``trains``: its first step is done.

        ``pid`` and ``environment`` are the attempt's.
        """
        if self._ranks is not None:
            if trains and not self._learned:
                self._learned = True
                self._ranks.learn(self._recorded())
            self._ranks.watch()
        if self._off:
            return
        if trains and self._cold_start is not None:
            self._needed = max(_LEAST, DEARER * self._cold_start.seconds())
            self._cold_start = None
        if trains and self._image is not None:
            image, self._image = self._image, None
            if _image_of(pid) not in (image, None):
                self._give_up("the program replaces itself (exec), and what comes then starts cold anyway")
                return
        if self._spare is not None:
            self._look(self._spare)
        elif trains and (self._ranks is None or self._ranks.settled):  # one at a time: each takes memory
            if not self._record:
                data = self._recorded()
                self._record, self._stopped = read_record(data, pid), why_stopped(data, pid)
            self._keep_one(environment)

    def give_up(self, reason: str) -> None:
        """Keep no spare any more: the next starts are cold, of ranks, too."""
        if self._ranks is not None:
            self._ranks.give_up(reason)
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        if not self._off:
            self._off = True
            self._end()
            self._notice("spare", f"no interpreter is kept ready any more, so a restart is cold: {reason}")

    def close(self) -> None:
        """End the spare; the run is over."""
        self._end()
        self._off = True
        if self._ranks is not None:
            self._ranks.close()
        if self._record_file >= 0:
            os.close(self._record_file)
            self._record_file = -1

    def _recorded(self) -> bytes:
        return os.pread(self._record_file, os.fstat(self._record_file).st_size, 0)

    def _keep_one(self, environment: Mapping[str, str]) -> None:
        left = memory_left()
        if not any(kind == "i" for kind, _ in self._record):
            self._give_up(self._stopped or "nothing was noted of what the program imports")
        elif left < NEEDS:
            self._give_up(
                f"only {size_text(left)} of memory are left, and one is started with {size_text(NEEDS)}"
            )
        else:
            try:
                self._oom_kills = processes.oom_kills()
                self._spare = SpareProcess(self._command, environment, self._record)
            except OSError as error:
                self._give_up(str(error))

    def _look(self, spare: SpareProcess) -> None:
        """Hear what the spare says, and give it up where memory runs short."""
        for message in spare.messages(0.0):
            if message.get("ready"):
                spare.note_ready()
                self._needed = max(_LEAST, _SCATTER * spare.took)
                self._say_ready(spare, message)
            elif "cut" in message:
                self._cut(message)
                return
            elif "failed" in message:
                self._give_up(f"the interpreter that was kept ready has ended: {message['failed']}")
                return
        if spare.process.poll() is not None:
            # Where the kernel has ended it for the memory that it had taken, that is no death of the attempt's.
            if spare.process.returncode == -signal.SIGKILL and processes.oom_kills() > self._oom_kills:
                self.killed += 1
            self._give_up("the interpreter that was kept ready has ended by itself")
        elif (left := memory_left()) < SHORT:
            self._give_up(f"only {size_text(left)} of memory are left")

    def _say_ready(self, spare: SpareProcess, message: Mapping[str, Any]) -> None:
        if self._said:
            return
        self._said = True
        self._notice(
            "spare",
            f"an interpreter is kept ready for a quick restart: {message['modules']} modules, "
            f"{size_text(spare.memory)} of memory (--no-spare: none is kept)"
            + (f"; what is imported later starts cold: {self._stopped}" if self._stopped else ""),
        )

    def _cut(self, message: Mapping[str, Any]) -> None:
        self._end()
        self._record, self._stopped = self._record[: message["cut"]], message["reason"]
        self._tries += 1
        if self._tries >= TRIES or not self._record:
            self._give_up(f"what the program imports can't be imported beforehand: {message['reason']}")

    def _start_warm(self, environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Turn the spare into an attempt; None, and said, where it can't be."""
        spare = self._spare
        if self._unsaid and self._starts:
            self._unsaid = False
            self._notice(
                "spare", f"the command starts cold: what {self._command[0]} does can't be done beforehand"
            )
        if spare is None or self._off:
            if self._starts and not self._off:
                self._say_cold("no interpreter was ready yet")
            return None
        same = without_own(spare.environment) == without_own(environment)
        if same and not spare.has_come_far(self._needed):
            self._say_cold("no interpreter was ready yet")  # it stays, for the start after this one
            return None
        reason = spare.become_attempt(environment, self._needed) if same else "the environment has changed"
        if reason:
            self._end()
            self._say_cold(reason)
            return None
        self._spare = None
        return spare.process

    def _say_cold(self, reason: str) -> None:
        """Say why a start is cold, where that isn't what was said of one last."""
        if reason != self._cold:
            self._cold = reason
            warm = self._ranks is not None and self._ranks.forks
            what = "the launcher starts cold, and its ranks don't" if warm else "this start is cold"
            self._notice("spare", f"{what}: {reason}")

    def _end(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()


def _image_of(pid: int) -> int | None:
    """Return what differs between a process and what it becomes by exec: where its stack begins; None: unknown."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[25]) or None  # startstack, see proc(5)
    except (OSError, ValueError, IndexError):
        return None


def can_be_spared(command: Sequence[str]) -> bool:
    """Tell whether a command is Python's own from its first moment: a shell's commands would be run beforehand."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create") or why_unreached(command):
        return False
    return bool(command) and is_python(command[0])


def without_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what `vl run` sets anew for each attempt."""
    return {name: value for name, value in environment.items() if not is_own_variable(name)}
