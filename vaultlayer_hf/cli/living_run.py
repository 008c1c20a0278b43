"""Finds the `vl run` of a run folder that is alive. Several may write into one: a second start, or one on each node."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

_SILENCE = 120.0
"""Seconds without a pulse after which a run on another machine counts as gone."""
_CLOCK_STEP = 60.0
"""Seconds by which a clock that is set may move the moment at which a process seems to have been made."""


def living_run(
    lines: Sequence[dict[str, Any]], elsewhere: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """Return the line with which the newest `vl run` that is alive has begun; None: there is none.

    Whatever a later one has written: it may have ended at once, and the one before goes on.

    Args:
        lines: of the run folder's journal.
        elsewhere: tells of one on another machine, by its line, whether it counts as alive.
    """
    ended = {line["run"] for line in lines if line["kind"] == "end"}

    def lives(begin: dict[str, Any]) -> bool:
        here = begin.get("host") == platform.node() and isinstance(begin.get("pid"), int)
        return _lives(begin["pid"], begin["time"]) if here else elsewhere(begin)

    begins = [line for line in lines if line["kind"] == "begin" and line["run"] not in ended]
    return next(filter(lives, reversed(begins)), None)


def is_heard(
    begin: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    beats: Mapping[int, dict[str, Any]],
    now: float,
) -> bool:
    """Tell whether a `vl run`, or one of its attempts, has given a sign of life lately.

    Args:
        begin: its line.
        lines: of the run folder's journal.
        beats: the last pulse of each attempt.
        now: seconds since the epoch.
    """
    mine = [line for line in lines if line["run"] == begin["run"]]
    pulses = [beats[number] for number in {line["attempt"] for line in mine} & set(beats)]
    heard = [item["time"] for item in [*mine, *pulses] if isinstance(item.get("time"), (int, float))]
    return now - max(heard, default=0.0) < _SILENCE


def _lives(pid: int, begin: float) -> bool:
    """Tell whether a process is there that has written at a moment: its number may be another's by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    try:
        made: float = psutil.Process(pid).create_time()
        return made <= begin + _CLOCK_STEP
    except psutil.Error:
        return True  # other users' processes may be hidden
