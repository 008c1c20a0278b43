"""Clearing: what commits make superfluous goes, on this disk and in the vault. Trouble here costs nothing but space.

A snapshot that isn't carried any more is put aside, not removed: it can be adopted until a newer one is sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import FencedError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.retention.policy import Policy
from vaultlayer_hf.vault.retention.prune import clean_orphans
from vaultlayer_hf.vault.retention.tidy import tidy_vault
from vaultlayer_hf.vault.snapshot import Snapshot
from vaultlayer_hf.vault.upload.patience import Patience, StoppedError, SupersededError


class Clearing:
    """Clears for one uploader. All but ``put_aside`` and ``hear`` on its thread.

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
        self._news: tuple[Commit, ...] = ()
        self._cleaned = False

    def put_aside(self, snapshot: Snapshot) -> None:
        """Keep a snapshot that isn't carried any more until a newer one is sealed."""
        self._stale.append(snapshot)

    def remove_stale(self) -> None:
        """Remove what was put aside: a newer snapshot is sealed."""
        while self._stale:
            self._stale.pop().remove()

    def hear(self, commits: Sequence[Commit]) -> None:
        """Learn what the node that commits has committed; for the other nodes."""
        self._news = tuple(commits)

    def take_news(self) -> None:
        """Clear away what the commits that were told of make superfluous; for the other nodes."""
        news, self._news = self._news, ()
        for done in news:
            for snapshot in list(self._stale):
                if (snapshot.manifest.token, snapshot.seq) <= (done.token, done.seq):
                    snapshot.remove()
                    self._stale = [other for other in self._stale if other is not snapshot]
            self._clear_after(done)

    def after(self, done: Commit) -> None:
        """Retention and orphans, after a commit counts. Raises StoppedError, FencedError."""
        assert self._writer is not None
        self._clear_after(done)
        try:
            with self._patience.tidying():
                self._tidy_the_vault(self._writer, done)
            self._events.forget("tidy ")
        except SupersededError:
            pass  # the trouble was said; the next commit goes on with it
        except (StoppedError, FencedError):
            raise
        except Exception as error:  # whatever it is, the commit counts
            cause = error.reason if isinstance(error, StoreError) else error
            self._events.warn_once(
                f"tidy {type(error).__name__} {cause}",
                EventKind.TROUBLE,
                f"old checkpoints can't be deleted now, it is tried again after the next commit: {error}",
            )

    def _tidy_the_vault(self, writer: Writer, done: Commit) -> None:
        for decision in tidy_vault(self._store, writer, self._policy, {done.number} | self._protected):
            self._events.info(
                EventKind.RETIRE,
                f"{decision.commit.name} retired and deleted: {decision.reason}",
                step=decision.commit.step,
                reason=decision.reason,
            )
        if not self._cleaned:
            self._cleaned = True
            clean_orphans(self._store, writer)

    def _clear_after(self, done: Commit) -> None:
        try:
            self._after_commit(done)
        except Exception as error:
            what = f"what {done.name} makes superfluous on this disk can't be removed: {error}"
            self._events.warn_once(f"local {type(error).__name__}", EventKind.TROUBLE, what)
