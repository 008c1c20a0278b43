"""The background uploader: one thread that seals, sends and commits snapshots while training goes on.

A save that arrives while another is under way waits, and a newer one replaces it: see queue.py. Trouble of the
store is retried for ever, until a newer save makes the one in trouble pointless. The newest snapshot that is whole
stays on the disk, and the newest that is sealed, so that at every moment behind the first save there is something to
adopt: see clearing.py.

With several nodes the one that commits sets the pace: at each save the others are told which checkpoints it
still wants (``follow``). They drop all others, and none that it waits for, so that a slow node costs checkpoints
in between and never all of them. A node that gives one up itself says so in the store.

The thread takes the lowest priority with the first checkpoint of 16 MiB, and large files are moved by a process: see
mover.py. Less is 20 ms of work, for which a thread of low priority needs a second where all cores are busy: it gets the
interpreter last, and training waits for it to give that back.

Nothing here raises into training. What happened is told through events; ``fenced`` is looked at by the seam.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.priority import give_way
from vaultlayer_hf.errors import FencedError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.snapshot import Snapshot, SnapshotChangedError
from vaultlayer_hf.vault.upload.carrying import Carrier
from vaultlayer_hf.vault.upload.clearing import Clearing
from vaultlayer_hf.vault.upload.figures import UploadFigures
from vaultlayer_hf.vault.upload.job import Job
from vaultlayer_hf.vault.upload.mover.store import LARGE, MovingStore
from vaultlayer_hf.vault.upload.patience import Patience
from vaultlayer_hf.vault.upload.queue import UploadQueue

_STOP_SECONDS = 10.0
"""Seconds that an end of the process waits for the upload thread to give up."""
_SEAL_SECONDS = 60.0
"""Seconds that an end of the process waits for the last snapshot to be sealed."""


class Uploader:
    """Carries snapshots to the vault on a thread of its own.

    Args:
        store: the vault's store, bare: patience is the uploader's business.
        writer: the claim under which to commit; None on nodes that only bring in their part.
        node: number of this node.
        events: where to tell what happens.
        policy: retention in the vault.
        resumed_from: the commit that this run went on from, or None.
        known: that commit where all of its files were read from the vault just now: what is the same needn't be sent.
        rate: bandwidth cap in bytes per second, or None.
        current_step: tells the step that training is at, for the exposure.
        after_commit: called with each commit on this thread; errors are reported, never raised.
        part_timeout: seconds to wait for the other nodes' parts.
        keeps_best: the best checkpoint is needed at the end: it isn't given up for a newer one.
        measured: returns figures of the run to note with each commit.
        protected: numbers of commits that are never retired.
        begins_at: the step that the run begins at; also that of a fork, which resumes from no commit of this vault.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer | None,
        events: Events,
        *,
        node: int = 0,
        policy: Policy,
        resumed_from: Commit | None,
        known: Commit | None = None,
        rate: float | None = None,
        current_step: Callable[[], int],
        after_commit: Callable[[Commit], None] = lambda commit: None,
        part_timeout: float = 600.0,
        keeps_best: bool = False,
        measured: Callable[[], dict[str, float]] = dict,
        protected: Collection[int] = (),
        begins_at: int = 0,
    ) -> None:
        self.figures = UploadFigures(begins_at, current_step)
        self._queue = UploadQueue(keeps_best)
        self._events = events
        self._patience = Patience(self._queue, events, self.figures, rate)
        self._moving = MovingStore(
            store,
            exact=rate is not None,
            say=lambda message: events.warn_once(message, EventKind.NOTICE, message),
            sending=self.figures.sending,
        )
        patient = RetryingStore(
            self._moving,
            RetryPolicy(deadline=None, retry_all=True),
            should_stop=self._patience.give_up,
            on_retry=lambda error, attempt, delay: self._patience.report(error),
        )
        self._clearing = Clearing(
            patient,
            writer,
            events,
            self._patience,
            policy,
            protected={*protected, *((resumed_from.number,) if resumed_from else ())},
            after_commit=after_commit,
        )
        self._carrier = Carrier(
            patient,
            writer,
            events,
            self.figures,
            self._patience,
            self._clearing,
            digest=self._moving.digest,
            node=node,
            resumed_from=resumed_from,
            known=known,
            part_timeout=part_timeout,
            measured=measured,
        )
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Queue a snapshot; never blocks and never raises for the store's sake. On one thread only."""
        replaced = self._queue.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="vaultlayer-upload", daemon=True)
            self._thread.start()
        for other in replaced:
            self._clearing.put_aside(other.snapshot)
            self._say_replaced(other.snapshot, job.snapshot)
        try:
            self._clearing.outdate(job.snapshot)
        except OSError as error:
            what = f"a snapshot that isn't needed any more can't be removed: {error}"
            self._events.warn_once(f"outdated {type(error).__name__}", EventKind.TROUBLE, what)

    def follow(self, wanted: Collection[int], commits: Sequence[Commit]) -> None:
        """Learn from the node that commits which saves it still wants, and what it has committed.

        For the other nodes. ``wanted`` are positions among the saves of this writer.
        """
        self._queue.want(wanted)
        self._clearing.note_commits(commits)

    def clear_superseded(self) -> None:
        """Remove what the commits make superfluous that ``follow`` was told of; for the other nodes."""
        self._clearing.clear_superseded()

    def note_troubles(self, others: Mapping[int, str]) -> None:
        """Learn which other nodes are in trouble, and why; for the node that commits."""
        self._carrier.others = others

    @property
    def carried(self) -> tuple[int, ...]:
        """Positions of the saves that are under way or queued, oldest first."""
        return tuple(job.seq for job in self._queue.jobs)

    @property
    def trouble(self) -> str | None:
        """What keeps uploads from succeeding now, or None."""
        return self._patience.trouble

    @property
    def full_since(self) -> float | None:
        """Since when (of time.monotonic) the vault has been full, or None."""
        return self._patience.full_since

    @property
    def newest_name(self) -> str:
        """The name of the newest checkpoint that is under way or queued; ``""`` where none is."""
        return next((job.snapshot.name for job in reversed(self._queue.jobs)), "")

    def end(self) -> None:
        """Note that no step follows: messages about trouble no longer say that training goes on."""
        self._patience.over = True

    @property
    def remaining(self) -> int:
        """Bytes still to be hashed and sent, at most."""
        return (
            sum(2 * job.size for job in self._queue.jobs) - self._patience.hashed_bytes - self.figures.taken
        )

    @property
    def unsent(self) -> int:
        """Bytes that are queued or under way and not in the store, at most."""
        return max(0, sum(job.size for job in self._queue.jobs) - self.figures.taken)

    @property
    def rate(self) -> float | None:
        """Bytes per second that the store takes while they are sent; None: not known yet."""
        return self.figures.rate

    @property
    def fenced(self) -> FencedError | None:
        """Why nothing can be committed any more, or None."""
        return self._carrier.fenced

    @property
    def waiting_since(self) -> float | None:
        """Since when (of time.monotonic) only parts of other nodes are missing, or None."""
        return self._carrier.waiting_since

    def wait(self, timeout: float) -> bool:
        """Wait until idle or fenced; return whether that is so within ``timeout`` seconds."""
        return self._queue.wait(timeout, lambda: self.fenced is not None)

    def stop(self, within: float | None = None) -> None:
        """Give up what is under way, soon; snapshots stay on the disk, sealed, for the next start to adopt.

        ``within``: seconds to wait for that; None: as long as sealing takes.
        """
        self._queue.stop()
        self._events.sum_up()
        if self._thread is not None:
            self._thread.join(timeout=_STOP_SECONDS if within is None else within)
            if self._carrier.sealing and within is None:
                self._thread.join(timeout=_SEAL_SECONDS)
        self._moving.close()

    def exposure(self) -> str:
        """Return in words what would be lost now: time and steps since the last commit."""
        return self.figures.exposure_text

    def exposure_figures(self) -> tuple[float, int]:
        """Return (seconds, steps) since the last commit, or since the start where there is none."""
        return self.figures.exposure

    def _say_replaced(self, snapshot: Snapshot, newer: Snapshot) -> None:
        self._events.repeated(
            EventKind.ABANDON,
            f"{snapshot.name} is skipped: {newer.name} is newer, and the upload before it isn't done; "
            f"{self.exposure()}",
            step=snapshot.manifest.step,
            reason="superseded",
        )

    def _run(self) -> None:
        going = True
        while going and (job := self._queue.take()) is not None:
            if job.size >= LARGE:
                give_way()  # each time: the store's threads may be new
            try:
                going = self._carrier.attempt(job)
            except Exception as error:  # whatever it is, the next save is to be carried
                self._events.warn(
                    EventKind.TROUBLE, f"unexpected {type(error).__name__} in the uploader: {error}"
                )
            finally:
                self._queue.finish()
        if self.fenced is None:
            self._seal_what_waits()

    def _seal_what_waits(self) -> None:
        """Stopped: make what wasn't sent adoptable."""
        for job in self._queue.waiting:
            try:
                self._carrier.seal(job)
            except Exception as error:
                self._carrier.abandon(job, str(error), keep=not isinstance(error, SnapshotChangedError))
