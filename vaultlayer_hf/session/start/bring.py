"""Bring a commit to the disks: on each node once what its ranks load, whichever node wrote it. All or none."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.errors import CorruptError, ResumeError, StoreError, VaultLayerError
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles, Conversion
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start import relay as relays
from vaultlayer_hf.session.start.relay import Relay
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore.ranges import ByteSource
from vaultlayer_hf.vault.restore.restore import restore

_STATUS_SECONDS = 5.0
"""Time between two reports of how far a node's restore is."""
_CONVERSION_SECONDS = 1200.0
"""Time that a conversion may take on top of a restore."""
_SLOWEST_BYTES_PER_SECOND = 2e6
"""A node that restores more slowly than this counts as gone."""


def bring_everywhere(
    session: Session,
    seam_files: CheckpointFiles,
    commit: Commit,
    manifest: Manifest,
    *,
    purpose: str,
    source: Access | None = None,
) -> str | None:
    """Restore a commit on every node; return why the commit itself is bad, raise any other error on all ranks.

    ``source``: the vault that holds it; None: this run's own. ``purpose``: what it is restored for, for the message.
    """
    return _Restore(session, seam_files, commit, manifest, purpose, source or session.access).on_all_nodes()


def conversion_for(session: Session, seam_files: CheckpointFiles, manifest: Manifest) -> Conversion | None:
    """Return how a checkpoint is made loadable for this many ranks; None where it is already."""
    return seam_files.conversion(manifest.paths, written=manifest.world_size, now=session.ranks.world_size)


@dataclass(frozen=True)
class _Restore:
    """The restore of one commit, as one rank takes part in it.

    Attributes:
        session: of this rank.
        seam_files: the seam's, which knows what the files of its checkpoints are.
        commit: which one.
        manifest: of the whole checkpoint.
        purpose: what it is restored for, for the message.
        source: the vault that holds it.
    """

    session: Session
    seam_files: CheckpointFiles
    commit: Commit
    manifest: Manifest
    purpose: str
    source: Access

    def on_all_nodes(self) -> str | None:
        """Restore on every node; see ``bring_everywhere``. All ranks."""
        session, bound = self.session, self._bound()
        with ExitStack() as stack:
            # Whatever ends this, Ctrl-C too: no open server stays behind, and nobody waits for a node that has gone.
            stack.enter_context(session.ranks.leaving_where_interrupted())
            relay = self._connect()
            if relay is not None:
                stack.callback(relay.close)
            failure = None
            if session.leads_node:
                failure = self._try_here(relay)
            else:
                what = f"waiting for {self.commit.name} to be restored on this node"
                session.events.info(EventKind.WAITING, what)
            answers = session.ranks.gather(failure, timeout=bound, on_wait=self._say_waiting)
        failures = [found for found in answers if found is not None]
        for found in failures:
            if not isinstance(found, CorruptError):
                raise found
        return str(failures[0]) if failures else None

    def _bound(self) -> float:
        """Return after how many seconds a node that hasn't restored it counts as gone."""
        settings = self.session.settings
        bound = settings.resume_timeout + settings.part_timeout
        if conversion_for(self.session, self.seam_files, self.manifest) is not None:
            bound += _CONVERSION_SECONDS
        return bound + self.manifest.bytes / _SLOWEST_BYTES_PER_SECOND

    def _try_here(self, relay: Relay | None) -> VaultLayerError | None:
        """Restore on this node; return what all ranks are to raise where that failed, whatever it was."""
        session = self.session
        try:
            self._here(relay)
        except StoreError as error:
            return session.ranks.named(self.source.unreachable(error))
        except OSError as error:
            what = f"{self.commit.name} can't be restored to {session.output_dir}: {error}"
            return session.ranks.named(ResumeError(what))
        except Exception as error:
            return session.ranks.named(error)
        return None

    def _connect(self) -> Relay | None:
        """Connect the nodes, where there is enough that all of them need; on leaders. All ranks. Raises RanksError."""
        session, topology = self.session, self.session.topology
        if topology is None or len(topology.nodes) < 2:
            return None
        # A file is loaded either by one rank, hence one node, or by every rank. So what two nodes both load, all load:
        # comparing nodes 0 and 1 is enough, however many there are.
        first, second = (set(self._share_of(node).files) for node in (0, 1))
        common = [entry for entry in self.manifest.files if entry in first and entry in second]
        if sum(entry.size for entry in common) < relays.SMALLEST:
            return None
        mine: Relay | None = None
        if session.leads_node and (host := relays.own_address()) is not None:
            try:
                mine = Relay(session.node, host)
            except OSError:
                pass  # the others do without this node, and this one without them
        own = (session.node, mine.address) if mine is not None else None
        try:
            key, found = session.ranks.decide(own, lambda found: (uuid.uuid4().hex, found))
        except BaseException:
            if mine is not None:
                mine.close()
            raise
        if mine is not None:
            peers = dict(each for each in found if each is not None)
            mine.connect(key, peers, common, relays.stretches(common, len(topology.nodes)))
        return mine

    def _here(self, relay: Relay | None) -> None:
        """Restore what this node's ranks load, and say so."""
        session, commit = self.session, self.commit
        share = self._share_of(session.node)
        with bytes_bar(share.bytes, f"Restoring {commit.name}", shown=session.progress) as bar:
            try:
                fetched, taken = self._fetch(share, relay, _Progress(session, share.bytes, bar))
            finally:
                if relay is not None:
                    relay.end()
        if fetched == self.manifest.bytes and not taken and self.source is session.access:
            session.read_back.add(commit.number)
        passed = f"{size_text(taken)} of them by way of other nodes, " if taken else ""
        session.events.info(
            EventKind.RESTORE,
            f"{commit.name} (log entry {commit.number}) restored and verified: {size_text(fetched)} fetched, {passed}"
            f"{size_text(share.bytes - fetched)} taken from this disk; {self.purpose}",
            step=commit.step,
            number=commit.number,
            fetched=fetched,
            taken=taken,
        )

    def _fetch(self, share: Manifest, relay: Relay | None, progress: _Progress) -> tuple[int, int]:
        """Fetch and verify this node's share; return how many bytes came, and how many of these from nodes."""
        store, folder = self.source.store, self.commit.folder
        conversion = conversion_for(self.session, self.seam_files, self.manifest)
        output_dir = self.session.output_dir

        def finish(staging: Path) -> None:
            if relay is not None:
                relay.end()
            if conversion is not None:
                conversion.of_folder(staging)
            for name, data in self.seam_files.localised(staging, output_dir, share.versions).items():
                files.write_file(staging / name, data)

        def attempt(through: Callable[[Path, set[str]], ByteSource] | None) -> int:
            progress.begin()
            return restore(
                store,
                folder,
                share,
                output_dir / f"checkpoint-{share.step}",
                concurrency=self.session.settings.upload_concurrency,
                on_bytes=progress.count,
                finish=finish,
                source=through,
            )

        if relay is None:
            return attempt(None), 0
        try:
            return attempt(lambda staging, there: relay.source(store, folder, staging, there)), relay.taken
        except CorruptError:
            if not relay.taken:
                raise
        # Some of the bad bytes may be another node's. Fetched from the store alone, they show whether its own are bad.
        return attempt(None), 0

    def _share_of(self, node: int) -> Manifest:
        """Return the manifest of what a node's ranks load; all of it where another number of ranks wrote it."""
        session, manifest = self.session, self.manifest
        if session.topology is None or manifest.world_size != session.ranks.world_size:
            return manifest
        ranks = session.topology.nodes[node]
        wanted = self.seam_files.wanted(manifest.paths, ranks, world_size=manifest.world_size)
        return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path in wanted))

    def _say_waiting(self) -> None:
        session = self.session
        here = session.ranks.get_status(_topic(session))
        what = "the other nodes" if session.leads_node else f"this node ({here})" if here else "this node"
        session.events.sign_of_life(f"still waiting for {self.commit.name} to be restored on {what}")


class _Progress:
    """How far a node's restore is: on its bar, and for the ranks that wait for this node.

    Args:
        session: of this rank.
        total: bytes of the node's share.
        bar: ``bytes_bar`` of this many.
    """

    def __init__(self, session: Session, total: int, bar: Any) -> None:
        self._session, self._total, self._bar = session, total, bar
        self._moved, self._reported = 0, time.monotonic()

    def begin(self) -> None:
        """Begin at 0: another attempt fetches everything again."""
        self._moved = 0
        self._bar.reset()

    def count(self, size: int) -> None:
        """Take note of more bytes, on any thread."""
        self._moved += size
        self._bar.update(size)
        if time.monotonic() - self._reported > _STATUS_SECONDS:
            self._reported = time.monotonic()
            text = f"{size_text(self._moved)} of {size_text(self._total)}"
            self._session.ranks.set_status(_topic(self._session), text)


def _topic(session: Session) -> str:
    return f"restore/{session.node}"
