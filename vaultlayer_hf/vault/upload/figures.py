"""The figures of a run's uploads: what would be lost now, what an upload costs, how fast bytes are sent.

Two durations are kept apart, because two questions are asked:

- How long does it take until a sealed snapshot is in, waiting for other nodes and copies inside the store included?
  That is what limits how often checkpoints can be committed: ``seconds_each``.
- How many bytes does the store take in a second? That says whether what is unsent still fits into the time before a
  preemption: ``rate``. Only seconds in which a file's bytes were under way count. With waits or copies among them the
  rate would come out too low, and a last save that would have fitted wouldn't be tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vaultlayer_hf.base.text import duration_text
from vaultlayer_hf.vault.log.entry import Commit

_ENOUGH = 2.0
"""Seconds of sending that say something of the rate while no checkpoint is in yet."""


class UploadFigures:
    """Figures of one uploader. Written on its thread, read on any. Bytes are those sent, never those copied.

    Args:
        step: the step that the run began at.
        current_step: tells the step that training is at.
        clock: seconds that never go back; another one only in tests.

    Attributes:
        commits: how many checkpoints this run has committed.
        uploaded_bytes: bytes sent for the checkpoints that are in.
        upload_seconds: seconds that these took from the seal on, waits included.
    """

    def __init__(
        self, step: int, current_step: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.commits = 0
        self.uploaded_bytes = 0
        self.upload_seconds = 0.0
        self._current_step = current_step
        self._clock = clock
        self._begin = step
        self._last_commit = (clock(), step)
        self._sent, self._sending_seconds = 0, 0.0
        self._under_way: tuple[float, int] | None = None
        self._uploads = 0
        self._of_this = 0

    @property
    def exposure(self) -> tuple[float, int]:
        """What would be lost now: (seconds, steps) since the last commit, or since the start where there is none."""
        begun, step = self._last_commit
        return self._clock() - begun, max(0, self._current_step() - step)

    @property
    def exposure_text(self) -> str:
        """What would be lost now, in words."""
        seconds, steps = self.exposure
        since = f"the resume from step {self._begin}" if self._begin else "the start, with no commit yet"
        since = "the last commit" if self.commits else since
        return f"exposure: {duration_text(round(seconds))} and {steps} steps since {since}"

    @property
    def seconds_each(self) -> float:
        """Seconds that the upload of a commit has taken so far, on average; 0 before the first."""
        return self.upload_seconds / self.commits if self.commits else 0.0

    @property
    def rate(self) -> float | None:
        """Bytes that the store takes in a second, while any are sent; None: nothing is known yet."""
        sent, seconds = self._sent, self._sending_seconds
        if (file := self._under_way) is not None:
            sent, seconds = sent + file[1], seconds + self._clock() - file[0]
        telling = seconds > (0 if self._uploads else _ENOUGH)
        return sent / seconds if sent and telling else None

    @property
    def taken(self) -> int:
        """Bytes of the snapshot under way that the store has taken."""
        return self._of_this + (self._under_way[1] if self._under_way is not None else 0)

    def begin_upload(self) -> None:
        """Another snapshot is taken up."""
        self._of_this = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around one try at sending a file. One that fails doesn't count: a store in trouble isn't a slow one."""
        self._under_way = (self._clock(), 0)
        try:
            yield
            begun, count = self._under_way
            self._sent += count
            self._of_this += count
            self._sending_seconds += self._clock() - begun
        finally:
            self._under_way = None

    def sent(self, count: int) -> None:
        """Bytes of the file under way were taken."""
        if self._under_way is not None:
            begun, before = self._under_way
            self._under_way = (begun, before + count)

    def add_upload(self, sent: int, seconds: float) -> None:
        """A snapshot, or this node's part of it, is in: ``sent`` bytes, ``seconds`` after it was sealed."""
        self._uploads += 1
        self.uploaded_bytes += sent
        self.upload_seconds += seconds

    def add_commit(self, done: Commit) -> None:
        """A checkpoint was committed."""
        self.commits += 1
        self._last_commit = (self._clock(), done.step)
