"""What starts an attempt and waits for its end: the interface between `vl run` and where a program runs.

An engine makes an ``Attempt`` with what it was asked to run; from there on `vl run` knows nothing of processes. Today
there is one: local.py, for processes of this machine.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf.run.decide.decision import hang_limit

ENDING = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals that ask a program to end."""
_TURN = 0.1
"""Seconds between two looks at what was received."""


@dataclass
class Pulse:
    """What the signs of life of a run have taught; kept over its attempts.

    Attributes:
        longest: the longest pause between two signs of life in training, in seconds.
        seen: how many pauses are known.
        fixed: seconds to use instead of what is learnt; None: learn.
    """

    longest: float = 0.0
    seen: int = 0
    fixed: float | None = None

    def limit(self, phases: set[str]) -> float:
        """Return for how many seconds there may be no sign of life now."""
        if "done" in phases:
            return math.inf  # what a script does behind train() is its own affair
        if self.fixed is not None and phases <= {"train", "loop"}:
            return self.fixed
        # A loop of one's own doesn't say when it evaluates, so nothing is learnt of it.
        if phases == {"train"}:
            return hang_limit([self.longest] * min(self.seen, 3))
        return max(2 * hang_limit([]), self.fixed or 0.0)


@dataclass
class ReceivedSignals:
    """The signals that `vl run` has been sent; more may come at any time.

    Attributes:
        names: in order.
    """

    names: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str | None:
        """The first one that asks to end; None where there was none."""
        return next((name for name in self.names if name in ENDING), None)

    def none_for(self, seconds: float) -> bool:
        """Wait; return whether nothing that asks to end was received until then."""
        end = time.monotonic() + seconds
        while self.ending is None:
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _TURN))
        return False


class Attempt(ABC):
    """A program that was started, until nothing of it runs any more.

    Attributes:
        folder: of the attempt, which its ranks write their notes to.
        pid: of what was started, on the machine where that is.
        silent: seconds without a sign of life for which it was ended; None: it wasn't.
    """

    folder: Path
    pid: int
    silent: float | None

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Since its start."""

    @property
    @abstractmethod
    def output(self) -> str:
        """The end of what it wrote, for its last traceback; all of it is in the attempt's folder."""

    @abstractmethod
    def wait(self, received: ReceivedSignals, grace: float) -> int:
        """Wait until it has ended, in whatever way; return its exit code, or minus the number of a signal.

        What ``received`` gets is passed on. After the first signal that asks to end, the program has ``grace`` seconds;
        a second one ends it at once. One without a sign of life is asked for its stacks and ended.
        """
