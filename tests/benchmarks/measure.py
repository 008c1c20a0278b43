"""How a figure comes about: one child process for each measurement, its memory sampled, rows for the table.

Memory is the sum of RssAnon and RssShmem over the child and its descendants, sampled every 20 ms from the
moment before the work (after all imports) to its end: pages of mapped files aren't in it, the kernel can drop
those at will. Growth is the peak minus the first sample.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import psutil

from tests import ROOT

"""The repository: children run there."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        section: letter of the part that it belongs to.
        measure: what is measured.
        who: the client or the way of doing it.
        value: the median, with its unit.
        ratio: the figure that a goal speaks of, or one to compare, as text.
        goal: the goal for ``ratio`` or ``value``, or empty.
        met: whether the goal is met; None where there is none.
        memory: growth of memory in MB, or None.
    """

    section: str
    measure: str
    who: str
    value: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None
    memory: float | None = None


def median_ratio(upper: Iterable[float], lower: Iterable[float]) -> float:
    """Return the median over rounds of upper/lower: noise that a whole round shares cancels out."""
    return statistics.median(a / b for a, b in zip(upper, lower, strict=True))


def anonymous_bytes(process: psutil.Process, family: list[psutil.Process]) -> int:
    """Return the bytes of memory of a process and ``family`` that no file backs."""
    total = 0
    for each in (process, *family):
        try:
            with open(f"/proc/{each.pid}/status") as status:
                for line in status:
                    if line.startswith(("RssAnon", "RssShmem")):
                        total += int(line.split()[1]) * 1024
        except (OSError, ValueError):
            pass  # it has just ended
    return total


class MemorySampler:
    """Samples a process in the background; ``growth`` holds bytes once stopped."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.first = self.peak = anonymous_bytes(self.process, [])
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()

    def _sample(self) -> None:
        family: list[psutil.Process] = []
        looked = 0.0
        while not self.stopping.wait(0.02):
            if time.monotonic() - looked > 0.2:  # walking the process table costs more than reading one entry
                try:
                    family = self.process.children(recursive=True)
                except psutil.Error:
                    family = []
                looked = time.monotonic()
            self.peak = max(self.peak, anonymous_bytes(self.process, family))

    def stop(self) -> float:
        """Stop and return the growth in bytes."""
        self.stopping.set()
        self.thread.join()
        return float(self.peak - self.first)


def child(
    module: str, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = 900
) -> dict[str, Any]:
    """Run ``python -m module arguments``, which prints ``ready``, waits for a line and prints JSON at the end.

    Returns that JSON with ``growth`` (bytes of memory) added. Raises RuntimeError where the child fails.
    """
    environment = {**os.environ, **(extra or {}), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    guard = threading.Timer(timeout, process.kill)
    guard.start()
    try:
        assert process.stdin
        assert process.stdout
        if _line(process.stdout, "ready") is None:
            raise RuntimeError(f"{module} {' '.join(arguments)} did not start")
        sampler = MemorySampler(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        result = _line(process.stdout, "result ")
        growth = sampler.stop()
        process.stdin.close()
        if process.wait() != 0 or result is None:
            raise RuntimeError(f"{module} {' '.join(arguments)} ended with {process.returncode}")
        return {**json.loads(result), "growth": growth}
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()


def _line(output: IO[str], start: str) -> str | None:
    """Return what follows ``start`` on the next line that begins so; None at the end. Libraries print too."""
    for line in output:
        if line.startswith(start):
            return line.removeprefix(start)
    return None


def ready() -> None:
    """Called by a child: tell the parent that everything is imported, and wait for its word."""
    print("\nready", flush=True)
    sys.stdin.readline()


def done(**result: object) -> None:
    """Called by a child: hand the result to the parent."""
    print(f"\nresult {json.dumps(result)}", flush=True)
