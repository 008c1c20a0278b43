"""The queue between training and the upload thread: what is under way, what waits, and what nobody wants any more.

It holds one waiting save: the newest wins. Where the end of training loads the best checkpoint, a save that the
newest one names as the best so far isn't given up for it: it goes first, so the log's order stays that of the
saves. Nor is a finite save given up for one whose weights or loss are nan. On a node that doesn't commit it also holds
those that the node which commits still wants, so that the two never wait for each other's leavings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from vaultlayer_hf.vault.upload.job import Job


class UploadQueue:
    """Jobs for one thread. Every method may be called from any thread.

    Args:
        keeps_best: whether the best save is kept beside the newest.
    """

    def __init__(self, keeps_best: bool = False) -> None:
        self._keeps_best = keeps_best
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._busy: Job | None = None
        self._wanted: frozenset[int] = frozenset()
        self._stopping = False

    def put(self, job: Job) -> list[Job]:
        """Add the newest save and return those that it replaces."""
        with self._changed:
            outlive = [
                *[waiting for waiting in self._waiting if self._is_best(waiting, job)][-1:],
                *[waiting for waiting in self._waiting if _is_finite_before(waiting, job)][-1:],
            ]
            kept = [waiting for waiting in self._waiting if waiting.seq in self._wanted or waiting in outlive]
            replaced = [waiting for waiting in self._waiting if waiting not in kept]
            self._waiting = [*kept, job]
            self._changed.notify_all()
        return replaced

    def take(self) -> Job | None:
        """Wait for a save and make it the one under way; None where the queue was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            self._busy = self._waiting.pop(0)
            return self._busy

    def finish(self) -> None:
        """Say that the save under way is done or given up."""
        with self._changed:
            self._busy = None
            self._changed.notify_all()

    def want(self, seqs: Collection[int]) -> None:
        """Note which saves the node that commits still wants, by their position; for the other nodes."""
        with self._changed:
            self._wanted = frozenset(seqs)

    def stop(self) -> None:
        """Let ``take`` return None from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def stopping(self) -> bool:
        """Whether it was stopped."""
        return self._stopping

    @property
    def newer_waits(self) -> bool:
        """Whether a save waits behind the one under way, for which that one may be given up."""
        with self._changed:
            if not self._waiting:
                return False
            busy, newest = self._busy, self._waiting[-1]
            return busy is None or not (self._is_best(busy, newest) or _is_finite_before(busy, newest))

    @property
    def waiting(self) -> tuple[Job, ...]:
        """What waits, oldest first."""
        with self._changed:
            return tuple(self._waiting)

    @property
    def unwanted(self) -> bool:
        """Whether the node that commits has gone past the save under way."""
        with self._changed:
            seq = self._busy.seq if self._busy is not None else None
            return seq is not None and seq not in self._wanted and any(other > seq for other in self._wanted)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What is under way and what waits, oldest first."""
        with self._changed:
            return (*((self._busy,) if self._busy is not None else ()), *self._waiting)

    def wait(self, timeout: float, enough: Callable[[], bool]) -> bool:
        """Wait until nothing is under way or waits, or ``enough()`` at a change; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: enough() or not self.jobs, timeout)

    def _is_best(self, job: Job, newest: Job) -> bool:
        step, manifest = job.snapshot.manifest.step, newest.snapshot.manifest
        return self._keeps_best and step == manifest.best_step and step != manifest.step


def _is_finite_before(job: Job, newest: Job) -> bool:
    return bool(newest.nonfinite) and not job.nonfinite
