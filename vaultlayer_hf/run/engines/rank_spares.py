"""The starts of ranks by torchrun or `accelerate launch`: cold, or forked by a process that has done the imports.

The launcher starts each rank by a stand-in (inside/startup/vaultlayer_rank.py), which this class puts into a private
folder. In the first attempt the stand-in notes how the rank is started, and becomes it. Once that rank trains, a
template is started with its command (inside/startup/vaultlayer_forks.py): it imports what the rank had imported, and
forks a rank for every stand-in that asks from then on, in a restart by `vl run` and in one by the launcher itself. One
template serves all ranks of this machine and all restarts; most of its memory is shared with the ranks that it forks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.run.engines.memory import NEEDS, SHORT, memory_left
from vaultlayer_hf.run.engines.reach import STARTUP
from vaultlayer_hf.run.engines.spare_process import SpareProcess
from vaultlayer_hf.run.imports import RANKS_VARIABLE, TRIES, Item, read_rank_start, read_record

_LONGEST = 100
"""Bytes of a socket's path: the kernel takes 107."""


class RankSpares:
    """Keeps the template of a run's ranks on this machine.

    Args:
        notice: called with what somebody should know: a topic and a sentence.

    Attributes:
        settled: there is nothing to wait for: the template is ready, or there will be none.
    """

    def __init__(self, notice: Callable[[str, str], None]) -> None:
        self._notice = notice
        self._folder: Path | None = _made_folder()
        self._off = self._folder is None
        self._template: SpareProcess | None = None
        self._start: dict[str, Any] | None = None
        self._record: list[Item] = []
        self._tries = 0
        self._said = False
        self.settled = self._off

    @property
    def forks(self) -> bool:
        """Whether ranks start warm now."""
        return self._template is not None and self._said

    @property
    def variables(self) -> dict[str, str]:
        """What an attempt's environment gets for the hook to find the stand-in; nothing where ranks start cold."""
        return {} if self._folder is None else {RANKS_VARIABLE: str(self._folder)}

    @property
    def pids(self) -> frozenset[int]:
        """Of the template, which is no part of the attempt that is under way."""
        return frozenset() if self._template is None else frozenset({self._template.process.pid})

    def learn(self, data: bytes) -> None:
        """Take from an attempt's record how its ranks are started. An attempt without ranks settles it."""
        if self._off:
            return
        found = read_rank_start(data)
        if found is None:
            self.settled = True
            return
        pid, self._start = found
        self._record = read_record(data, pid)

    def watch(self) -> None:
        """Look after the template; start it once it is known how."""
        if self._off or self._start is None:
            return
        if self._template is None:
            self._begin(self._start)
        else:
            self._look(self._template)

    def give_up(self, reason: str) -> None:
        """Keep no template any more: the next ranks start cold. The stand-in stays: launchers that run will use it."""
        if not self._off:
            self._off = self.settled = True
            self._end()
            if self._start is not None:
                self._notice(
                    "spare", f"no interpreter is kept ready for ranks any more, so they start cold: {reason}"
                )

    def close(self) -> None:
        """End the template; the run is over."""
        self._off = self.settled = True
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, start: dict[str, Any]) -> None:
        left = memory_left()
        if not self._record:
            self.give_up("nothing was noted of what they import")
        elif start["cwd"] != os.getcwd() or not _as_started_here(start["surroundings"]):
            self.give_up("their launcher changes the folder, or where their output goes")
        elif left < NEEDS:
            self.give_up(
                f"only {size_text(left)} of memory are left, and one is started with {size_text(NEEDS)}"
            )
        else:
            try:
                self._template = SpareProcess(
                    start["command"],
                    start["environment"],
                    self._record,
                    ranks=f"{self._folder}/socket",
                    # A launcher that handles SIGHUP gives its ranks the default, also where `nohup` has it ignored.
                    ignored=int(start["surroundings"]["SigIgn"], 16),
                )
            except OSError as error:
                self.give_up(str(error))

    def _look(self, template: SpareProcess) -> None:
        for message in template.messages(0.0):
            if message.get("ready"):
                template.note_ready()
                self.settled = True
                self._say_ready(template, message)
            elif "cut" in message:
                self._cut(message)
                return
            elif "failed" in message:
                self.give_up(f"it has ended: {message['failed']}")
                return
        if template.process.poll() is not None:
            self.give_up("it has ended by itself")
        elif (left := memory_left()) < SHORT:
            self.give_up(f"only {size_text(left)} of memory are left")

    def _say_ready(self, template: SpareProcess, message: dict[str, Any]) -> None:
        if not self._said:
            self._said = True
            self._notice(
                "spare",
                f"an interpreter is kept ready that forks ranks for a quick restart: {message['modules']} modules, "
                f"{size_text(template.memory)} of memory for all of them (--no-spare: none is kept)",
            )

    def _cut(self, message: dict[str, Any]) -> None:
        self._end()
        self._record = self._record[: message["cut"]]
        self._tries += 1
        if self._tries >= TRIES or not self._record:
            self.give_up(f"what they import can't be imported beforehand: {message['reason']}")

    def _end(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            template.end()


def _made_folder() -> Path | None:
    """Return a private folder with the stand-in in it; None where there can't be one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="vl-ranks-"))
    except OSError:
        return None
    program = folder / "python"
    words = shlex.join([sys.executable, "-I", "-S", str(STARTUP / "vaultlayer_rank.py")])
    try:
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o700)
        # A folder may forbid to execute what lies in it: then each rank's start would fail.
        if os.access(program, os.X_OK) and len(os.fsencode(folder / "socket")) <= _LONGEST:
            return folder
    except OSError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _as_started_here(surroundings: dict[str, Any]) -> bool:
    """Tell whether a rank's stdin, stdout and stderr are of the kinds that a process of ours is started with."""
    kinds = surroundings["the kinds of stdin, stdout and stderr"]
    return bool(kinds == [stat.S_IFCHR, stat.S_IFIFO, stat.S_IFIFO])
