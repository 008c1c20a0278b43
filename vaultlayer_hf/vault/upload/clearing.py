"""Clearing: what commits make superfluous goes, on this disk and in the vault. Trouble here costs nothing but space.

A snapshot whose upload was given up is put aside, not removed: the next start on this disk could still go on from it.
It may go once a newer snapshot is as safe as it is. A sealed one survives a power cut, so it stays until a newer one is
sealed. One that has only its note survives a kill of the process, so it stays until a newer one has its note on every
node. This node knows that at the save after that newer one, because every rank has come to that save.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.finite import newest_finite
from vaultlayer_hf.vault.log.log import Log, Writer
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.prune import clean_orphans, delete_folder
from vaultlayer_hf.vault.retention.tidy import tidy_vault
from vaultlayer_hf.vault.snapshot import Snapshot
from vaultlayer_hf.vault.upload.patience import Patience, StoppedError, SupersededError


class Clearing:
    """Clears for one uploader. All but ``put_aside``, ``outdate`` and ``note_commits`` on its thread.

    Args:
        store: the vault.
        writer: the claim under which to retire; None on nodes that only bring in their part.
        events: where to tell what happens.
        patience: how long to bear with a store in trouble.
        policy: retention in the vault.
        protected: numbers of commits that are never retired.
        after_commit: called with each commit; errors are reported, never raised.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer | None,
        events: Events,
        patience: Patience,
        policy: Policy,
        *,
        protected: Collection[int],
        after_commit: Callable[[Commit], None],
    ) -> None:
        self._store, self._writer = store, writer
        self._events, self._patience = events, patience
        self._policy, self._protected = policy, set(protected)
        self._after_commit = after_commit
        self._stale: list[Snapshot] = []
        self._lock = threading.Lock()
        """Held while ``_stale`` changes."""
        self._committed: tuple[Commit, ...] = ()
        self._finite: dict[int, bool] = {}
        """By number of a commit whether it is finite, as far as that was found out."""
        self._cleaned = False
        self._abandoned: list[str] = []
        """Folders of this writer's own uploads that were given up before their commit, and are still there."""

    def put_aside(self, snapshot: Snapshot) -> None:
        """Keep a snapshot that isn't carried any more until a newer one can be adopted in its place."""
        with self._lock:
            self._stale.append(snapshot)

    def discard_later(self, folder: str) -> None:
        """Delete behind the next commit what an upload has left that was given up, and never asked for its commit.

        No node fills the folder any more by then: each brings in its part of a later save when it is through with this.
        """
        self._abandoned.append(folder)

    def outdate(self, newest: Snapshot) -> None:
        """Remove snapshots that ``newest``, which has its note by now, makes superfluous. On the training thread.

        The newest of those that were put aside stays: on other nodes ``newest`` may have no note yet. So no more than
        one waits here that has no seal, however long an upload takes. Raises OSError.
        """
        if newest.noted:
            only_whole = [one for one in self._older_than(newest.seq) if one.noted and not one.has_seal]
            self._remove(sorted(only_whole, key=_seq_of)[:-1])

    def remove_older(self, sealed: Snapshot) -> None:
        """Remove what was put aside and is older than a snapshot that is sealed now. Raises OSError."""
        self._remove(self._older_than(sealed.seq))

    def _older_than(self, seq: int) -> list[Snapshot]:
        with self._lock:
            return [snapshot for snapshot in self._stale if snapshot.seq < seq]

    def _remove(self, snapshots: Collection[Snapshot]) -> None:
        for snapshot in snapshots:
            snapshot.remove()
            with self._lock:
                self._stale = [other for other in self._stale if other is not snapshot]

    def note_commits(self, commits: Sequence[Commit]) -> None:
        """Learn what the node that commits has committed; for the other nodes."""
        self._committed = tuple(commits)

    def clear_superseded(self) -> None:
        """Remove what the commits make superfluous that ``note_commits`` was told of; for the other nodes."""
        commits, self._committed = self._committed, ()
        for done in commits:
            older = self._older_than(done.seq + 1)
            self._remove([one for one in older if one.manifest.token == done.token])
            self._clear_after(done)

    def after(self, done: Commit, *, finite: bool = True) -> None:
        """Retention and orphans, after a commit counts. Raises StoppedError, FencedError."""
        assert self._writer is not None
        self._finite[done.number] = finite
        self._clear_after(done)
        self._tidying(lambda writer: self._tidy_the_vault(writer, done), "after the next commit")

    def make_room(self) -> None:
        """Retention ahead of a commit, once the vault was full. Raises StoppedError, FencedError.

        Where retention has become stricter since the newest commit, what it lets go would else wait for a commit that
        the full vault can't take.
        """
        if self._writer is not None and self._writer.state.commits:
            newest = self._writer.state.commits[-1]
            self._tidying(lambda writer: self._retire(writer, newest), "at the next save")

    def _tidying(self, tidy: Callable[[Writer], None], again: str) -> None:
        assert self._writer is not None
        try:
            with self._patience.tidying():
                tidy(self._writer)
            self._events.forget("tidy ")
        except SupersededError:
            pass  # the trouble was said; the next commit goes on with it
        except (StoppedError, FencedError):
            raise
        except Exception as error:  # whatever it is, no checkpoint is lost by it
            cause = error.reason if isinstance(error, StoreError) else error
            self._events.warn_once(
                f"tidy {type(error).__name__} {cause}",
                EventKind.TROUBLE,
                f"old checkpoints can't be deleted now, it is tried again {again}: {error}",
            )

    def _tidy_the_vault(self, writer: Writer, done: Commit) -> None:
        self._retire(writer, done)
        while self._abandoned:
            delete_folder(self._store, self._abandoned[0])
            self._abandoned.pop(0)
        if not self._cleaned:
            self._cleaned = True
            clean_orphans(self._store, writer)

    def _retire(self, writer: Writer, newest: Commit) -> None:
        finite = newest_finite(writer.state.commits, Log(self._store).read, self._finite)
        spared = {newest.number} | self._protected
        number = finite.number if finite is not None else None
        for decision in tidy_vault(self._store, writer, self._policy, spared, finite=number):
            self._events.repeated(
                EventKind.RETIRE,
                f"{decision.commit.name} retired and deleted: {decision.reason}",
                step=decision.commit.step,
                reason=decision.reason,
            )

    def _clear_after(self, done: Commit) -> None:
        try:
            self._after_commit(done)
        except Exception as error:
            what = f"what {done.name} makes superfluous on this disk can't be removed: {error}"
            self._events.warn_once(f"local {type(error).__name__}", EventKind.TROUBLE, what)


def _seq_of(snapshot: Snapshot) -> int:
    return snapshot.seq
