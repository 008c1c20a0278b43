"""Carrying one snapshot to the vault: try to load, seal, send, wait for the other nodes' parts, commit; or give it up.

The order is sending.py's. An error here costs one checkpoint at most: only being fenced, and being told to stop, end
the uploads. What wasn't committed is *abandoned*: nothing of it counts, its snapshot stays on the disk until a newer
one can be adopted in its place, and what it has left in the store is deleted, unless its commit may have landed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.errors import FencedError, VaultLayerError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.manifest import FileEntry
from vaultlayer_hf.vault.retention.prune import delete_folder
from vaultlayer_hf.vault.snapshot import Snapshot, SnapshotChangedError, check_unchanged, seal_snapshot
from vaultlayer_hf.vault.upload.clearing import Clearing
from vaultlayer_hf.vault.upload.figures import UploadFigures
from vaultlayer_hf.vault.upload.job import Job
from vaultlayer_hf.vault.upload.parts import collect_parts, refuse_part
from vaultlayer_hf.vault.upload.patience import Patience, StoppedError, SupersededError
from vaultlayer_hf.vault.upload.sending import Transfer, commit, send, write_part


class UnloadableError(VaultLayerError):
    """A checkpoint that was saved can't be loaded."""


class Carrier:
    """Carries one snapshot after the other. On the upload thread, but for ``others`` and what is read of it.

    Args:
        store: the vault, with the uploader's patience around it.
        writer: the claim under which to commit; None on nodes that only bring in their part.
        events: where to tell what happens.
        figures: counts what is sent and committed.
        patience: when to give up.
        clearing: what to do with snapshots that are done with.
        digest: as ``digest.digest_file``.
        node: number of this node.
        resumed_from: the commit that this run went on from, or None.
        known: that commit where all of its files were read from the vault just now: what is the same needn't be sent.
        part_timeout: seconds to wait for the other nodes' parts.
        measured: returns figures of the run to note with each commit.

    Attributes:
        fenced: why nothing can be committed any more, or None.
        sealing: whether a snapshot is being sealed now.
        waiting_since: since when (of time.monotonic) only parts of other nodes are missing, or None.
        others: which other nodes are in trouble, and why.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer | None,
        events: Events,
        figures: UploadFigures,
        patience: Patience,
        clearing: Clearing,
        *,
        digest: Callable[[Path, Callable[[int], None] | None], tuple[str, int]],
        node: int,
        resumed_from: Commit | None,
        known: Commit | None,
        part_timeout: float,
        measured: Callable[[], dict[str, float]],
    ) -> None:
        self._store, self._writer = store, writer
        self._events, self._figures = events, figures
        self._patience, self._clearing = patience, clearing
        self._digest = digest
        self._node = node
        self._resumed_from, self._known = resumed_from, known
        self._part_timeout = part_timeout
        self._measured = measured
        self._refused: list[tuple[str, str]] = []
        self.fenced: FencedError | None = None
        self.sealing = False
        self.waiting_since: float | None = None
        self.others: Mapping[int, str] = {}

    def attempt(self, job: Job) -> bool:
        """Carry a save or abandon it; return whether the next one is to be carried."""
        self._patience.begin()
        try:
            self._carry(job)
        except StoppedError:
            return False
        except SupersededError:  # as long as a store is in trouble, at each save
            self.abandon(job, self._why_superseded(), repeats=True)
        except FencedError as error:
            # Said first: the training thread may see ``fenced`` at any moment and end, and the listeners with it.
            self._events.warn(EventKind.FENCED, f"{error}")
            self.fenced = error
            return False
        except (SnapshotChangedError, UnloadableError) as error:
            self.abandon(job, str(error), keep=False)
        except (VaultLayerError, OSError) as error:
            # What can't be sent may still be whole on the disk: the next start can go on from it.
            self.abandon(job, str(error))
        except Exception as error:
            self.abandon(job, f"unexpected {type(error).__name__}: {error}")
        finally:
            self.waiting_since = None
        return True

    def seal(self, job: Job) -> Snapshot:
        """Make a snapshot one that a later start can adopt. Raises SnapshotChangedError, OSError, StoppedError."""
        self.sealing = True
        try:
            return seal_snapshot(job.snapshot, self._patience.hashed, self._digest)
        finally:
            self.sealing = False

    def abandon(self, job: Job, reason: str, *, keep: bool = True, repeats: bool = False) -> None:
        """Give a checkpoint up, and say so.

        Args:
            job: what is given up.
            reason: why, in words.
            keep: its snapshot stays until a newer one takes its place, since it may be whole.
            repeats: it may come with each save, so it is said now and then, with a count.
        """
        snapshot = job.snapshot
        if keep:
            self._clearing.put_aside(snapshot)
        else:
            try:
                snapshot.remove()
            except OSError as error:
                reason = f"{reason}; and its snapshot can't be removed: {error}"
        say = partial(self._events.repeated, level=logging.WARNING) if repeats else self._events.warn
        say(
            EventKind.ABANDON,
            f"{snapshot.name} is abandoned{'' if self._patience.over else ', training goes on'}: {reason}; "
            f"{self._figures.exposure_text}",
            step=snapshot.manifest.step,
            reason=reason,
        )
        if self._writer is None:
            self._refused.append((job.folder, reason))
            try:
                self._refuse()
            except Exception:
                pass  # tried again ahead of the next upload

    def _carry(self, job: Job) -> None:
        self._clearing.clear_superseded()
        # Ahead of the seal, which takes the longer the larger it is, and of what it replaces.
        _try_to_load(job)
        snapshot = self.seal(job)
        self._clearing.remove_older(snapshot)
        if self._patience.full_since is not None:
            self._clearing.make_room()
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
        self._figures.add_upload(transfer.sent, seconds)
        if done is None:
            self._clearing.put_aside(snapshot)  # not committed yet: kept until the next one is sealed
            self._events.info(EventKind.PART, f"the part of {snapshot.name} is in after {seconds:.1f} s")
            return
        self._known = done
        self._figures.add_commit(done)
        snapshot.remove()
        self._events.repeated(
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
        self._clearing.after(done, finite=not job.nonfinite)

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
            measured={**self._measured(), "upload": round(self._figures.seconds_each, 6)},
            nonfinite=job.nonfinite,
        )

    def _waiting_for_parts(self, missing: Collection[int], seconds: float) -> None:
        self.waiting_since = self.waiting_since or time.monotonic()
        known = {node: self.others[node] for node in missing if node in self.others}
        self._patience.in_trouble = bool(known)
        for node, trouble in known.items():
            self._patience.trouble = f"the part of node {node} isn't in: {trouble}"
        self._patience.give_up()

    def _why_superseded(self) -> str:
        if self._patience.trouble is not None:
            return f"{self._patience.trouble}, and a newer checkpoint waits"
        return "the node that commits has given it up"

    def _refuse(self) -> None:
        """Tell the node that commits what this one has given up, so that it doesn't wait. Raises StoreError."""
        while self._refused:
            folder, reason = self._refused[0]
            refuse_part(self._store, folder, self._node, reason)
            self._refused.pop(0)

    def _discard(self, transfer: Transfer) -> None:
        """Delete what an abandoned upload left, unless its commit may have landed; now, or behind the next commit."""
        if transfer.committing:
            return
        try:
            delete_folder(self._store, transfer.folder)
        except Exception:  # mostly so: a store in trouble is why it was abandoned
            self._clearing.discard_later(transfer.folder)


def _try_to_load(job: Job) -> None:
    """Raise UnloadableError where what this node sends can't be loaded; SnapshotChangedError, OSError."""
    snapshot = job.snapshot
    paths = (snapshot.stats.keys() or snapshot.manifest.paths) if job.only is None else job.only
    found = job.unloadable(snapshot.files, paths)
    if found:
        # A file that was rewritten since is the reason, not what a resume would make of it.
        for name in snapshot.stats:
            check_unchanged(snapshot, name)
        raise UnloadableError("; ".join(found))
