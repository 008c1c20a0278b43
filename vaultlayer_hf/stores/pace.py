"""A pace is called by a transfer before it moves bytes. This one caps the bandwidth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SLICE = 0.2  # seconds of a wait after which should_stop is asked again


class BandwidthCap:
    """A pace that holds all threads that share it together to a rate.

    Each call books the time that its bytes take, behind what is booked already, and waits for its turn. An
    idle time isn't saved up, so no burst follows it, but for the first chunk.

    Args:
        bytes_per_second: the cap, above 0.
        should_stop: called several times a second while waiting; what it raises ends the transfer.
        clock, sleep: for tests.
    """

    def __init__(
        self,
        bytes_per_second: float,
        *,
        should_stop: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not bytes_per_second > 0:
            raise ValueError("a bandwidth cap is above 0 bytes per second")
        self.bytes_per_second = bytes_per_second
        self._should_stop = should_stop or (lambda: None)
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._booked_until = float("-inf")

    def __call__(self, count: int) -> None:
        """Wait until ``count`` bytes may be moved."""
        with self._lock:
            turn = max(self._clock(), self._booked_until)
            self._booked_until = turn + count / self.bytes_per_second
        while (left := turn - self._clock()) > 0:
            self._should_stop()
            self._sleep(min(left, _SLICE))
