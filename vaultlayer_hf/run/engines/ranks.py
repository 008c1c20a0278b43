"""Ranks that have died, and those that wait for them in vain."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from vaultlayer_hf.run.journal import Notes, read_notes

_GRACE = 0.5
"""Seconds that ranks have to end by themselves, or by their launcher, once one of them is gone. Those that hear of it,
by a connection that is closed, do so within 0.1 s. What they were uploading lies on the disk, and is adopted."""
_PAUSE = 0.1
"""Seconds between two reads of the notes, at least."""


def lost_ranks(notes: Notes, exited: int = 0) -> list[int]:
    """Return the ranks that trained and are gone without an error or an end.

    ``exited``: pid of a process that has ended by itself, with an exit code: that isn't lost.
    """
    pids = {rank: int(line.get("pid") or 0) for rank, line in _training(notes).items()}
    return [rank for rank, pid in pids.items() if pid != exited and not psutil.pid_exists(pid)]


class WaitingRanks:
    """Finds ranks that can't end their step, since another has died.

    torchrun asks the others to end by SIGTERM, and kills them half a minute later. A rank that only notes SIGTERM, so
    as to save at the end of its step, and waits in a collective for the dead one, is there for all of it.
    """

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._since: float | None = None
        self._read = 0.0

    def look(self, folder: Path, ranks: int) -> list[int]:
        """Return the pids of ranks that have waited for too long; called again and again with an attempt's folder."""
        if ranks < 2 or (len(self._pids) == ranks and all(map(psutil.pid_exists, self._pids))):
            self._since = None
            return []
        now = time.monotonic()
        if self._since is not None and now - self._read < _PAUSE:
            return []
        self._read = now
        training = _training(read_notes(folder))  # read only now: it grows with what is logged
        self._pids = [int(line.get("pid") or 0) for line in training.values()]
        alive = [line for line in training.values() if psutil.pid_exists(int(line.get("pid") or 0))]
        if len(alive) == len(training):
            self._since = None
            return []
        self._since = self._since or time.time()
        if time.time() - self._since < _GRACE:
            return []
        # A launcher may have started all ranks again meanwhile: these train since, and are left alone.
        return [int(line["pid"]) for line in alive if line["time"] < self._since]


def _training(notes: Notes) -> dict[int, dict[str, Any]]:
    """Return the note with which each rank that hasn't come to an end has begun to train."""
    found = {}
    for rank, lines in notes.items():
        state = [line for line in lines if line["kind"] in ("train", "error", "trained")]
        if state and state[-1]["kind"] == "train":
            found[rank] = state[-1]
    return found
