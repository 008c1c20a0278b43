"""How long the upload thread bears with a store in trouble: for ever, until a newer save makes the try pointless.

Tidying is borne with for a bounded time: what it leaves costs only space, and the next commit goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import StoreError, StoreFullError
from vaultlayer_hf.stores.pace import BandwidthCap
from vaultlayer_hf.vault.upload.figures import UploadFigures
from vaultlayer_hf.vault.upload.queue import UploadQueue

TIDY_PATIENCE = 30.0
"""Seconds for which a store in trouble is tried while old checkpoints are deleted."""


class SupersededError(Exception):
    """Nobody wants it any more; or a newer save waits, or tidying has lasted long, and the store is in trouble."""


class StoppedError(Exception):
    """The uploader was told to stop."""


class Patience:
    """Knows whether the store is in trouble, and raises where a try is to be given up. On the upload thread.

    Args:
        queue: tells what waits, and whether to stop.
        events: where trouble is told, each once.
        figures: says what would be lost now, and counts what is sent.
        rate: bandwidth cap in bytes per second, or None.
    """

    def __init__(
        self, queue: UploadQueue, events: Events, figures: UploadFigures, rate: float | None
    ) -> None:
        self._queue = queue
        self._events = events
        self._figures = figures
        self._cap = BandwidthCap(rate, should_stop=self.give_up) if rate else None
        self._tidy_end: float | None = None
        self.in_trouble = False
        self.trouble: str | None = None
        """What keeps uploads from succeeding now, or None."""
        self.full_since: float | None = None
        """Since when (of time.monotonic) the vault has been full, or None."""
        self.hashed_bytes = 0
        """Bytes hashed of the snapshot under way."""
        self.over = False
        """No step follows."""

    def begin(self) -> None:
        """A new save is taken up."""
        self.hashed_bytes, self.in_trouble = 0, False
        self._figures.begin_upload()

    def recovered(self) -> None:
        """An upload has succeeded."""
        self.trouble, self.full_since = None, None
        if self._events.forget("upload "):
            self._events.info(EventKind.RECOVERED, "the vault can be written again")

    @contextmanager
    def tidying(self) -> Iterator[None]:
        """Within, patience is bounded, and trouble is none of the uploads'."""
        self.in_trouble, self._tidy_end = False, time.monotonic() + TIDY_PATIENCE
        try:
            yield
        finally:
            self._tidy_end = None

    def give_up(self) -> None:
        """Called before each attempt of a store operation and while waiting for one.

        Raises StoppedError, SupersededError.
        """
        if self._queue.stopping:
            raise StoppedError
        late = self._tidy_end is not None and time.monotonic() > self._tidy_end  # 0.0: at once
        if self._queue.unwanted or (self.in_trouble and (self._queue.newer_waits or late)):
            raise SupersededError

    def report(self, error: StoreError) -> None:
        """Called with each failed attempt."""
        self.in_trouble = True
        if self._tidy_end is None:
            self.trouble = str(error)
            full = isinstance(error, StoreFullError)
            self.full_since = (self.full_since or time.monotonic()) if full else None
            goes_on = "" if self.over else "training goes on and "
            topic, what = "upload", f"the vault can't be written now, {goes_on}it is tried again"
            hint = "; a start with a lower keep_last keeps fewer checkpoints there" if full else ""
        else:
            topic, what, hint = "tidy", "old checkpoints can't be deleted now, it is tried again", ""
            if error.operation == "delete" and not error.transient:
                # A run without that right: nothing that passes within seconds, as credentials do that are renewed.
                self._tidy_end, what = 0.0, f"{what} after the next commit"
        self._events.warn_once(
            f"{topic} {type(error).__name__} {error.reason}",
            EventKind.TROUBLE,
            f"{what}: {error}; {self._figures.exposure_text}{hint}",
            reason=error.reason,
        )

    def hashed(self, count: int) -> None:
        """Called with counts of bytes that were read."""
        self.hashed_bytes += count

    def sent(self, count: int) -> None:
        """Called with counts of bytes that the store has taken. Raises as ``give_up`` does."""
        self.in_trouble = False
        self.give_up()
        if self._cap is not None:
            self._cap(count)
        self._figures.sent(count)
