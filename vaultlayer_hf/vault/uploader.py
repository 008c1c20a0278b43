"""The background uploader: one thread that seals, sends and commits snapshots while training goes on.

A save that arrives while another is under way waits in a queue of one: the newest wins, the one it replaces
is abandoned. Trouble of the store is retried for ever, until a newer save makes the one in trouble
pointless. An older sealed snapshot is kept on the disk until a newer one is sealed, so that at every moment
after the first seal there is something to adopt.

Nothing here raises into training. What happened is told through events; ``fenced`` is looked at by the seam.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vaultlayer_hf import files
from vaultlayer_hf.errors import FencedError, StoreError, VaultLayerError
from vaultlayer_hf.events import Events, size_text
from vaultlayer_hf.stores.base import Pace, Store
from vaultlayer_hf.vault.entry import Commit
from vaultlayer_hf.vault.log import Writer
from vaultlayer_hf.vault.prune import clean_orphans, delete_folder, retire
from vaultlayer_hf.vault.retention import Policy, decide
from vaultlayer_hf.vault.snapshot import Snapshot, seal
from vaultlayer_hf.vault.upload import Transfer, commit, send, start_transfer


class _SupersededError(Exception):
    """A newer save waits and this one is in trouble."""


class _StoppedError(Exception):
    """The uploader was told to stop."""


@dataclass
class Figures:
    """Figures of a run's uploads. Seconds are wall time; bytes count what was sent, not what was copied."""

    commits: int = 0
    uploaded_bytes: int = 0
    upload_seconds: float = 0.0
    last_commit_time: float = field(default_factory=time.monotonic)
    last_commit_step: int = 0


class Uploader:
    """Carries snapshots to the vault on a thread of its own.

    Args:
        make_store: gives the store to use, from a function that is called before each retry and while
            waiting (it raises to give up) and one that is told of each failed attempt.
        writer: the claim under which to commit.
        events: where to tell what happens.
        policy: retention in the vault.
        resumed_from: the commit that this run went on from, or None.
        cap: bandwidth cap, called with byte counts; or None.
        current_step: tells the step that training is at, for the exposure.
        after_commit: called with each commit on this thread; errors are reported, never raised.
    """

    def __init__(
        self,
        make_store: Callable[[Callable[[], None], Callable[[StoreError], None]], Store],
        writer: Writer,
        events: Events,
        *,
        policy: Policy,
        resumed_from: Commit | None,
        cap: Pace | None,
        current_step: Callable[[], int],
        after_commit: Callable[[Commit], None] = lambda commit: None,
    ) -> None:
        self._store = make_store(self._give_up, self._report_trouble)
        self._writer = writer
        self._events = events
        self._policy = policy
        self._resumed_from = resumed_from
        self._known = resumed_from
        self._cap = cap
        self._current_step = current_step
        self._after_commit = after_commit
        self._used_names: set[str] = set()
        self._stale: list[Snapshot] = []
        self._pending: Snapshot | None = None
        self._busy: Snapshot | None = None
        self._stopping = False
        self._in_trouble = False
        self._cleaned = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.fenced: FencedError | None = None
        self.moved = 0
        """Bytes hashed or sent of the snapshot under way; for a progress bar."""
        self.figures = Figures(last_commit_step=resumed_from.step if resumed_from else 0)

    def submit(self, snapshot: Snapshot) -> None:
        """Queue a snapshot; never blocks and never raises for the store's sake."""
        with self._changed:
            replaced, self._pending = self._pending, snapshot
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vaultlayer-upload", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if replaced is not None:
            self._stale.append(replaced)
            self._events.warn(
                "abandon",
                f"{replaced.name} is abandoned: {snapshot.name} is newer and the upload before it isn't done; "
                f"{self.exposure()}",
                step=replaced.manifest.step,
                reason="superseded",
            )

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or under way."""
        with self._changed:
            return self._pending is None and self._busy is None

    @property
    def remaining(self) -> int:
        """Bytes still to be hashed and sent, at most."""
        with self._changed:
            waiting = [snapshot for snapshot in (self._busy, self._pending) if snapshot is not None]
        return sum(2 * _size(snapshot) for snapshot in waiting) - self.moved

    def wait(self, timeout: float) -> bool:
        """Wait until idle or fenced; return whether that is so within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.fenced is not None or (self._pending is None and self._busy is None), timeout
            )

    def stop(self) -> None:
        """Give up what is under way, soon; snapshots stay on the disk."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def exposure(self) -> str:
        """Return in words what would be lost now: time and steps since the last commit."""
        seconds, steps = self.exposure_figures()
        return f"exposure: {seconds:.0f} s and {steps} steps since the last commit"

    def exposure_figures(self) -> tuple[float, int]:
        """Return (seconds, steps) since the last commit, or since the start where there is none."""
        figures = self.figures
        return time.monotonic() - figures.last_commit_time, max(
            0, self._current_step() - figures.last_commit_step
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending is not None or self._stopping)
                if self._stopping:
                    return
                snapshot, self._pending = self._pending, None
                self._busy = snapshot
                self.moved = 0
                self._in_trouble = False
            assert snapshot is not None
            try:
                self._carry(snapshot)
            except _StoppedError:
                return
            except _SupersededError:
                self._abandon(snapshot, "the store is in trouble and a newer checkpoint waits", keep=True)
            except FencedError as error:
                self.fenced = error
                self._events.warn("fenced", f"{error}", token=self._writer.token)
                return
            except (VaultLayerError, OSError) as error:
                self._abandon(snapshot, str(error))
            except Exception as error:
                self._abandon(snapshot, f"unexpected {type(error).__name__}: {error}")
            finally:
                with self._changed:
                    self._busy = None
                    self._changed.notify_all()

    def _carry(self, snapshot: Snapshot) -> None:
        snapshot = seal(snapshot, self._count)
        while self._stale:
            self._stale.pop().remove()
        transfer = start_transfer(self._writer, snapshot, self._used_names)
        begin = time.monotonic()
        try:
            send(self._store, snapshot, transfer, self._known, self._pace)
            origin = self._resumed_from.number if self._resumed_from else None
            done = commit(self._store, self._writer, snapshot, transfer, resumed_from=origin)
        except (_SupersededError, VaultLayerError, OSError) as error:
            if not isinstance(error, FencedError):
                self._discard(transfer)
            raise
        seconds = time.monotonic() - begin
        self._known = done
        figures = self.figures
        figures.commits += 1
        figures.uploaded_bytes += transfer.sent
        figures.upload_seconds += seconds
        figures.last_commit_time, figures.last_commit_step = time.monotonic(), done.step
        snapshot.remove()
        self._events.forget()
        self._events.info(
            "commit",
            f"{done.name} committed to {self._store.uri}: {size_text(done.bytes)} in {seconds:.1f} s"
            + (f", {size_text(transfer.copied)} of it copied inside the store" if transfer.copied else ""),
            step=done.step,
            number=done.number,
            token=done.token,
            seconds=seconds,
            bytes=done.bytes,
            sent=transfer.sent,
        )
        self._tidy(done)

    def _tidy(self, done: Commit) -> None:
        """Retention and orphans, after the commit counts; trouble here costs nothing but space."""
        try:
            state = self._writer.state
            protected = {done.number} | ({self._resumed_from.number} if self._resumed_from else set())
            decisions = decide(state.commits, self._policy, best_step=state.best_step, protected=protected)
            drop = [decision for decision in decisions if not decision.keep]
            if drop or state.retiring:
                reasons = {decision.commit.number: decision.reason for decision in drop}
                retire(self._store, self._writer, [decision.commit for decision in drop], reasons)
                for decision in drop:
                    self._events.info(
                        "retire",
                        f"{decision.commit.name} retired and deleted: {decision.reason}",
                        step=decision.commit.step,
                        reason=decision.reason,
                    )
            if not self._cleaned:
                self._cleaned = True
                clean_orphans(self._store, self._writer)
            self._after_commit(done)
        except (StoreError, OSError) as error:
            self._events.warn_once(
                f"tidy {error}", "trouble", f"old checkpoints can't be deleted now: {error}"
            )

    def _abandon(self, snapshot: Snapshot, reason: str, *, keep: bool = False) -> None:
        if keep:
            self._stale.append(snapshot)
        else:
            snapshot.remove()
        self._events.warn(
            "abandon",
            f"{snapshot.name} is abandoned, training goes on: {reason}; {self.exposure()}",
            step=snapshot.manifest.step,
            reason=reason,
        )

    def _discard(self, transfer: Transfer) -> None:
        """Delete what an abandoned upload left, unless its commit may have landed; best effort."""
        if transfer.committing:
            return
        try:
            delete_folder(self._store, transfer.folder)
        except Exception:
            pass  # an orphan: a later writer deletes it after the grace

    def _give_up(self) -> None:
        """Called before each attempt of a store operation and while waiting for one."""
        with self._changed:
            if self._stopping:
                raise _StoppedError
            if self._pending is not None and self._in_trouble:
                raise _SupersededError

    def _report_trouble(self, error: StoreError) -> None:
        self._in_trouble = True
        self._events.warn_once(
            f"{type(error).__name__} {error.reason}",
            "trouble",
            f"the vault can't be written now, training goes on and it is tried again: {error}; {self.exposure()}",
            reason=error.reason,
        )

    def _count(self, count: int) -> None:
        if self._stopping:
            raise _StoppedError
        self._in_trouble = False
        self.moved += count

    def _pace(self, count: int) -> None:
        self._count(count)
        if self._cap is not None:
            self._cap(count)


def _size(snapshot: Snapshot) -> int:
    if snapshot.stats:
        return sum(size for size, _ in snapshot.stats.values())
    return snapshot.manifest.bytes


def local_tidy(
    output_dir: Path, committed: list[Commit], policy: Policy, best_step: int | None, keep: set[int]
) -> list[str]:
    """Apply a retention policy to committed checkpoint folders in ``output_dir``; return the names removed."""
    here = [item for item in committed if (output_dir / item.name).is_dir()]
    removed = []
    for decision in decide(here, policy, best_step=best_step, protected=keep):
        if not decision.keep:
            files.remove_tree(output_dir / decision.commit.name)
            removed.append(decision.commit.name)
    return removed
