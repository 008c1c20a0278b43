"""The background uploader: one thread that seals, sends and commits snapshots while training goes on.

A save that arrives while another is under way waits, and a newer one replaces it: see queue.py. Trouble of the
store is retried for ever, until a newer save makes the one in trouble pointless. An older sealed snapshot is
kept on the disk until a newer one is sealed, so that at every moment after the first seal there is something to
adopt.

With several nodes the one that commits sets the pace: at each save the others are told which checkpoints it
still wants (``follow``). They drop all others, and none that it waits for, so that a slow node costs checkpoints
in between and never all of them. A node that gives one up itself says so in the store.

The thread has the lowest priority, and large files are moved by a process: see mover.py.

Nothing here raises into training. What happened is told through events; ``fenced`` is looked at by the seam.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.priority import give_way
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.errors import FencedError, VaultLayerError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.manifest import FileEntry
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.prune import delete_folder
from vaultlayer_hf.vault.snapshot import Snapshot, SnapshotChangedError, seal
from vaultlayer_hf.vault.upload.clearing import Clearing
from vaultlayer_hf.vault.upload.job import Figures, Job
from vaultlayer_hf.vault.upload.mover.store import MovingStore
from vaultlayer_hf.vault.upload.parts import collect_parts, refuse_part
from vaultlayer_hf.vault.upload.patience import Patience, StoppedError, SupersededError
from vaultlayer_hf.vault.upload.queue import UploadQueue
from vaultlayer_hf.vault.upload.sending import Transfer, commit, send, write_part

_TELLING = 2.0
"""Seconds of an upload under way that say something of its rate."""
_LAST_WORD = 10.0
"""Seconds that an end of the process waits for the upload thread to give up."""
_LAST_SEAL = 60.0
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
    ) -> None:
        self._queue = UploadQueue(keeps_best)
        self._patience = Patience(self._queue, events, self.exposure, rate)
        self._moving = MovingStore(
            store,
            exact=rate is not None,
            say=lambda message: events.warn_once(message, EventKind.NOTICE, message),
        )
        self._store = RetryingStore(
            self._moving,
            RetryPolicy(deadline=None, retry_all=True),
            should_stop=self._patience.give_up,
            on_retry=lambda error, attempt, delay: self._patience.report(error),
        )
        self._writer = writer
        self._events = events
        self._resumed_from = resumed_from
        self._known = known
        self._current_step = current_step
        self._measured = measured
        self._node = node
        self._part_timeout = part_timeout
        protected = set(protected) | ({resumed_from.number} if resumed_from else set())
        self._clearing = Clearing(
            self._store,
            writer,
            events,
            self._patience,
            policy,
            protected=protected,
            after_commit=after_commit,
        )
        self._refused: list[tuple[str, str]] = []
        self._sealing = False
        self._others: Mapping[int, str] = {}
        self._thread: threading.Thread | None = None
        self.fenced: FencedError | None = None
        self.waiting_since: float | None = None
        """Since when (of time.monotonic) only parts of other nodes are missing, or None."""
        self.figures = Figures(last_commit_step=resumed_from.step if resumed_from else 0)

    def submit(self, job: Job) -> None:
        """Queue a snapshot; never blocks and never raises for the store's sake. On one thread only."""
        replaced = self._queue.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="vaultlayer-upload", daemon=True)
            self._thread.start()
        for other in replaced:
            self._clearing.put_aside(other.snapshot)
            self._events.warn(
                EventKind.ABANDON,
                f"{other.snapshot.name} is abandoned: {job.snapshot.name} is newer and the upload before it isn't "
                f"done; {self.exposure()}",
                step=other.snapshot.manifest.step,
                reason="superseded",
            )

    def follow(self, wanted: Collection[int], commits: Sequence[Commit]) -> None:
        """Learn from the node that commits which saves it still wants, and what it has committed.

        For the other nodes. ``wanted`` are positions among the saves of this writer.
        """
        self._queue.want(wanted)
        self._clearing.hear(commits)

    def take_news(self) -> None:
        """Clear away what the commits that were told of make superfluous; for the other nodes."""
        self._clearing.take_news()

    def hear(self, others: Mapping[int, str]) -> None:
        """Learn which other nodes are in trouble, and why; for the node that commits."""
        self._others = others

    @property
    def carried(self) -> tuple[int, ...]:
        """Positions of the saves that are under way or queued, oldest first."""
        return tuple(job.seq for job in self._queue.jobs)

    @property
    def trouble(self) -> str | None:
        """What keeps uploads from succeeding now, or None."""
        return self._patience.trouble

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._queue.jobs

    @property
    def remaining(self) -> int:
        """Bytes still to be hashed and sent, at most."""
        return sum(2 * job.size for job in self._queue.jobs) - self._patience.moved

    @property
    def unsent(self) -> int:
        """Bytes that are queued or under way and not in the store, at most."""
        return max(0, sum(job.size for job in self._queue.jobs) - self._patience.taken)

    @property
    def rate(self) -> float | None:
        """Bytes per second that uploads reach, by those that are done, else by the one under way; None: not known."""
        figures, patience = self.figures, self._patience
        if figures.uploaded_bytes and figures.upload_seconds:
            return figures.uploaded_bytes / figures.upload_seconds
        seconds = time.monotonic() - patience.begun
        return patience.taken / seconds if patience.taken and seconds > _TELLING else None

    def wait(self, timeout: float) -> bool:
        """Wait until idle or fenced; return whether that is so within ``timeout`` seconds."""
        return self._queue.wait(timeout, lambda: self.fenced is not None)

    def stop(self, within: float | None = None) -> None:
        """Give up what is under way, soon; snapshots stay on the disk, sealed, for the next start to adopt.

        ``within``: seconds to wait for that; None: as long as sealing takes.
        """
        self._queue.stop()
        if self._thread is not None:
            self._thread.join(timeout=_LAST_WORD if within is None else within)
            if self._sealing and within is None:
                self._thread.join(timeout=_LAST_SEAL)
        self._moving.close()

    def exposure(self) -> str:
        """Return in words what would be lost now: time and steps since the last commit."""
        return self.figures.exposure_text(self._current_step())

    def exposure_figures(self) -> tuple[float, int]:
        """Return (seconds, steps) since the last commit, or since the start where there is none."""
        return self.figures.exposure(self._current_step())

    def _run(self) -> None:
        going = True
        while going and (job := self._queue.take()) is not None:
            give_way()  # each time: the store's threads may be new
            try:
                going = self._attempt(job)
            except Exception as error:  # whatever it is, the next save is to be carried
                self._events.warn(
                    EventKind.TROUBLE, f"unexpected {type(error).__name__} in the uploader: {error}"
                )
            finally:
                self.waiting_since = None
                self._queue.finish()
        if self.fenced is None:
            self._seal_what_waits()

    def _attempt(self, job: Job) -> bool:
        """Carry a save or abandon it; return whether the next one is to be carried."""
        self._patience.begin()
        try:
            self._carry(job)
        except StoppedError:
            return False
        except SupersededError:
            self._abandon(job, self._why_superseded())
        except FencedError as error:
            self.fenced = error
            self._events.warn(EventKind.FENCED, f"{error}")
            return False
        except (SnapshotChangedError, OSError) as error:
            self._abandon(job, str(error), keep=False)
        except VaultLayerError as error:
            # What can't be sent may still be whole on the disk: the next start can go on from it.
            self._abandon(job, str(error))
        except Exception as error:
            self._abandon(job, f"unexpected {type(error).__name__}: {error}")
        return True

    def _seal_what_waits(self) -> None:
        """Stopped: make what wasn't sent adoptable."""
        for job in self._queue.waiting:
            try:
                self._seal(job)
            except Exception as error:
                self._abandon(job, str(error), keep=False)

    def _seal(self, job: Job) -> Snapshot:
        self._sealing = True
        try:
            return seal(job.snapshot, self._patience.hashed, self._moving.digest)
        finally:
            self._sealing = False

    def _carry(self, job: Job) -> None:
        self._clearing.take_news()
        snapshot = self._seal(job)
        self._clearing.remove_stale()
        transfer = Transfer(job.folder)
        begin = time.monotonic()
        try:
            if self._writer is not None:
                self._writer.check(self._store)
            send(self._store, snapshot, transfer, known=self._known, pace=self._patience.sent, only=job.only)
            self._refuse()
            part = write_part(self._store, snapshot, transfer, self._node)
            done = self._commit(job, snapshot, transfer, part)
        except (SupersededError, VaultLayerError, OSError) as error:
            if self._writer is not None and not isinstance(error, FencedError):
                self._discard(transfer)
            raise
        self._patience.recovered()
        seconds = time.monotonic() - begin
        self.figures.uploaded_bytes += transfer.sent
        self.figures.upload_seconds += seconds
        if done is None:
            self._clearing.put_aside(snapshot)  # not committed yet: kept until the next one is sealed
            self._events.info(EventKind.PART, f"the part of {snapshot.name} is in after {seconds:.1f} s")
            return
        self._known = done
        self.figures.add(done)
        snapshot.remove()
        self._events.info(
            EventKind.COMMIT,
            f"{done.name} committed to {self._store.uri}: {size_text(done.bytes)} in {seconds:.1f} s"
            + (f", {size_text(transfer.copied)} of it copied inside the store" if transfer.copied else ""),
            step=done.step,
            number=done.number,
            token=done.token,
            seconds=seconds,
            bytes=done.bytes,
            sent=transfer.sent,
        )
        self._clearing.after(done)

    def _commit(
        self, job: Job, snapshot: Snapshot, transfer: Transfer, part: tuple[FileEntry, ...]
    ) -> Commit | None:
        """Commit, once all parts are in; None on a node that only brings in its part."""
        if self._writer is None:
            return None
        parts = collect_parts(
            self._store, job.folder, job.others, self._part_timeout, self._waiting_for_parts
        )
        files = tuple(sorted((*part, *parts), key=lambda entry: entry.path))
        origin = self._resumed_from.number if self._resumed_from else None
        manifest = replace(snapshot.manifest, files=files)
        return commit(
            self._store,
            self._writer,
            manifest,
            transfer,
            resumed_from=origin,
            measured={**self._measured(), "upload": round(self.figures.seconds_each, 6)},
        )

    def _waiting_for_parts(self, missing: Collection[int], seconds: float) -> None:
        self.waiting_since = self.waiting_since or time.monotonic()
        known = {node: self._others[node] for node in missing if node in self._others}
        self._patience.in_trouble = bool(known)
        for node, trouble in known.items():
            self._patience.trouble = f"the part of node {node} isn't in: {trouble}"
        self._patience.give_up()

    def _why_superseded(self) -> str:
        if self.trouble is not None:
            return f"{self.trouble}, and a newer checkpoint waits"
        return "the node that commits has given it up"

    def _refuse(self) -> None:
        """Tell the node that commits what this one has given up, so that it doesn't wait. Raises StoreError."""
        while self._refused:
            folder, reason = self._refused[0]
            refuse_part(self._store, folder, self._node, reason)
            self._refused.pop(0)

    def _abandon(self, job: Job, reason: str, *, keep: bool = True) -> None:
        """Give a checkpoint up; its snapshot stays until a newer one is sealed, where it may be worth adopting."""
        snapshot = job.snapshot
        if keep:
            self._clearing.put_aside(snapshot)
        else:
            try:
                snapshot.remove()
            except OSError as error:
                reason = f"{reason}; and its snapshot can't be removed: {error}"
        self._events.warn(
            EventKind.ABANDON,
            f"{snapshot.name} is abandoned, training goes on: {reason}; {self.exposure()}",
            step=snapshot.manifest.step,
            reason=reason,
        )
        if self._writer is None:
            self._refused.append((job.folder, reason))
            try:
                self._refuse()
            except Exception:
                pass  # tried again ahead of the next upload

    def _discard(self, transfer: Transfer) -> None:
        """Delete what an abandoned upload left, unless its commit may have landed; best effort."""
        if transfer.committing:
            return
        try:
            delete_folder(self._store, transfer.folder)
        except Exception:
            pass  # an orphan: a later writer deletes it after the grace
