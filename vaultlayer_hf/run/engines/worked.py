"""How far a process has come: the seconds that it has had, without those in which others had the processor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


class Worked:
    """Measures a process from now on.

    Time in which it sleeps, or waits for a disk, counts: whoever does the same again would wait again. Time in which it
    is kept waiting for a processor doesn't: on a machine that is busy a process may be old and have done nothing yet.

    Args:
        pid: of the process.
        proc: where the kernel tells of processes.
        clock: seconds, as time.monotonic.
    """

    def __init__(
        self, pid: int, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = proc / str(pid), clock
        self._begin, self._before = clock(), self._counted()

    def seconds(self) -> float:
        """Return how many it has had; where the kernel counts no waiting, in how many it ran; 0 of one that is gone."""
        passed, (waited, ran) = self._clock() - self._begin, self._counted()
        waited_before, ran_before = self._before
        if waited is None or waited_before is None:
            return max(0.0, min(passed, ran - ran_before))  # its threads may have run side by side
        return max(0.0, passed - (waited - waited_before))

    def _counted(self) -> tuple[float | None, float]:
        """Return for how many seconds it has been kept waiting, None where that isn't counted, and has run.

        The waiting is that of its main thread, which does the imports; it has run in all its threads.
        """
        try:
            fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
            user, system = int(fields[11]), int(fields[12])  # utime and stime: see proc(5)
            ran = (user + system) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            ran = 0.0  # it is gone
        try:
            return int((self._folder / "schedstat").read_text().split()[1]) / 1e9, ran
        except (OSError, ValueError, IndexError):
            return None, ran
