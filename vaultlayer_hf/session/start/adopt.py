"""Adopt: go on from a complete local snapshot that is newer than the newest commit, then commit it.

local_snapshots.py says which snapshots on a node's disk count. Here all ranks agree on the newest one that every node
has, in an order that loses nothing, wherever a kill comes:

1. Each node verifies its part, or seals one that a kill left unsealed, before anything is loaded from it.
2. Rank 0 judges it: whether no file is lacking, the ranks are as many, and the model is this run's.
3. Each node makes the snapshot its own run's, and its upload is queued.

One node goes on from it at once and commits it in the background. Several nodes commit it first, and then each restores
from the vault what it lacks.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import settle
from vaultlayer_hf.session.save.plan import NodeFiles, UploadPlan, divide
from vaultlayer_hf.session.save.rounds import queue_upload
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.local_snapshots import find_local_snapshots
from vaultlayer_hf.session.waiting import wait_for_uploads
from vaultlayer_hf.vault.adoptable import end_adopting
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore.restore import place
from vaultlayer_hf.vault.snapshot import Snapshot, hand_over_snapshot, verify_snapshot
from vaultlayer_hf.vault.workspace import workspace


def adopt(
    session: Session,
    before: VaultState,
    seam_files: CheckpointFiles,
    *,
    differs: Callable[[Manifest], str],
    spared: Collection[Commit] = (),
    writers: Collection[int] = (),
    on_found: Callable[[], object] = lambda: None,
) -> Manifest | None:
    """Adopt the newest snapshot that counts. All ranks.

    Args:
        session: of this rank, which has claimed the vault.
        before: the vault's state before that claim.
        seam_files: the seam's, which knows what the files of its checkpoints are.
        differs: how the model that has written a snapshot differs from this run's; empty where it doesn't.
        spared: commits that the run has left behind, and that aren't retired.
        writers: tokens of those whose snapshots count beside the newest claim's, which has died behind its claim.
        on_found: called when every node has noted what it has found.

    Returns the snapshot's manifest where this run goes on from it right away: it is at
    ``output_dir/checkpoint-<step>`` then, and its upload is queued. None where there is none, or where it has just been
    committed and is to be restored like any other. Raises, on all ranks, RanksError, ResumeError (a disk).
    """
    found = find_local_snapshots(session, before, seam_files, writers) if session.leads_node else []
    adopted = _Adoption(session, before, seam_files, differs, spared).newest_of(found, on_found)
    if found and adopted is None:
        with contextlib.suppress(OSError):  # what is left there is of no use any more, and does no harm
            end_adopting(session.snapshots)
    return adopted


@dataclass(frozen=True)
class _Judgement:
    """What rank 0 makes of a snapshot.

    Attributes:
        manifest: of node 0's part.
        plan: who sends what.
        reason: why it can't be adopted, or None.
        sealed: whether it was sealed on all nodes.
    """

    manifest: Manifest
    plan: UploadPlan
    reason: str | None
    sealed: bool


@dataclass(frozen=True)
class _Adoption:
    """An adoption, as one rank takes part in it. Its attributes are ``adopt``'s arguments."""

    session: Session
    before: VaultState
    seam_files: CheckpointFiles
    differs: Callable[[Manifest], str]
    spared: Collection[Commit]

    def newest_of(self, snapshots: list[Snapshot], on_found: Callable[[], object]) -> Manifest | None:
        """Adopt the newest of this node's ``snapshots`` that every node has and that is sound; see ``adopt``."""
        session = self.session
        found = {(snapshot.manifest.token, snapshot.seq): snapshot for snapshot in snapshots}
        here = [list(key) for key in found] if session.leads_node else None
        common, nodes = session.ranks.decide(here, _common)
        on_found()
        for token, seq in common:
            snapshot, listing = None, NodeFiles()
            if session.leads_node:
                snapshot, listing = self._verify(found[token, seq])
            judgement = session.ranks.decide(
                listing,
                lambda listings, own=snapshot: self._judge(own, listings),  # type: ignore[misc]
                timeout=session.settings.flush_timeout,
            )
            if judgement.reason is None:
                return self._take_over(token, snapshot, judgement, nodes)
            what = f"the local snapshot {seq} isn't adopted: {judgement.reason}"
            session.warn_all(EventKind.WALK_BACK, what, seq=seq)
        return None

    def _verify(self, snapshot: Snapshot) -> tuple[Snapshot | None, NodeFiles]:
        """Verify this node's part of a snapshot, or seal it, and try whether it can be loaded."""
        node = self.session.node
        try:
            sound = verify_snapshot(snapshot)
        except Exception as error:  # of whatever kind: unsaid, the other ranks would wait for this one
            return snapshot, NodeFiles(node, error=str(error))
        unloadable = self.seam_files.unloadable(sound.files, sound.manifest.paths)
        if unloadable:
            return sound, NodeFiles(node, error="; ".join(unloadable))
        return sound, NodeFiles(node, tuple(sorted(sound.stats)), sealed=snapshot.sealed)

    def _judge(self, own: Snapshot | None, listings: list[NodeFiles]) -> _Judgement:
        """Decide on rank 0 whether a snapshot counts."""
        assert own is not None
        session, manifest = self.session, own.manifest
        plan = replace(divide(listings), folder=session.name_folder(own.name, session.coming_seq))
        reason = next((item.error for item in listings if item.error is not None), None)
        if reason is None and (
            lacking := self.seam_files.missing(set(plan.paths), world_size=manifest.world_size)
        ):
            reason = f"it lacks {', '.join(lacking)}, so a resume would not be the same run"
        if reason is None and manifest.world_size != session.ranks.world_size:
            reason = (
                f"{manifest.world_size} ranks have written it, and this run has {session.ranks.world_size}"
            )
        if reason is None and (words := self.differs(manifest)):
            reason = f"it belongs to another model: {words}"
        sealed = all(listing.sealed for listing in listings)
        return _Judgement(manifest, replace(plan, paths=frozenset()), reason, sealed)

    def _take_over(
        self, token: int, snapshot: Snapshot | None, judgement: _Judgement, nodes: int
    ) -> Manifest | None:
        """Make a snapshot this run's and queue its upload; of several nodes wait for its commit. All ranks."""
        session, manifest = self.session, judgement.manifest
        newest, seq = self.before.newest, session.next_seq()
        # Not simply the newest commit: that may be the one that the dead writer found corrupted and went around.
        of_writer = newest if newest is not None and newest.token == token else None
        origin = of_writer or self.before.origin(manifest.resumed_from)
        handed_over: list[Snapshot] = []

        def hand_over() -> None:
            if snapshot is None:
                return
            number = origin.number if origin else None
            handed_over.append(
                hand_over_snapshot(snapshot, session.snapshots, seq, session.entered.token, number)
            )
            end_adopting(session.snapshots)
            if nodes == 1:
                self._put_in_place(handed_over[0])

        # All wait here: nobody loads before the folder is in place.
        session.ranks.on_every_rank(hand_over, timeout=session.settings.flush_timeout)
        state = "sealed" if judgement.sealed else "whole, not yet sealed, same boot"
        session.events.info(
            EventKind.ADOPT,
            f"checkpoint-{manifest.step} was complete on {'this disk' if nodes == 1 else 'all nodes'} ({state}) and "
            f"newer than the newest commit: adopted, the run goes on from step {manifest.step}",
            step=manifest.step,
        )
        session.start_uploads(origin, spared=self.spared)
        queue_upload(session, handed_over[0] if handed_over else None, judgement.plan)
        if nodes == 1:
            return manifest
        _settle_uploads(session)
        return None

    def _put_in_place(self, snapshot: Snapshot) -> None:
        """Make a snapshot appear as a checkpoint folder in ``output_dir``."""
        output_dir, manifest = self.session.output_dir, snapshot.manifest
        staging = workspace(output_dir) / f"restore-{uuid.uuid4().hex}"
        for entry in manifest.files:
            target = staging / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not files.link(snapshot.files / entry.path, target):
                shutil.copyfile(snapshot.files / entry.path, target)
        for name, data in self.seam_files.localised(staging, output_dir, manifest.versions).items():
            files.write_file(staging / name, data)
        place(staging, output_dir / snapshot.name)
        settle(output_dir, manifest.step)


def _common(of_ranks: list[list[list[int]] | None]) -> tuple[list[list[int]], int]:
    """Return [token, seq] of the snapshots that are on all nodes, newest first, and how many nodes there are. Pure."""
    keys = [{(token, seq) for token, seq in found} for found in of_ranks if found is not None]
    return [list(key) for key in sorted(set.intersection(*keys), reverse=True)], len(keys)


def _settle_uploads(session: Session) -> None:
    """Wait until what is queued on any node is carried or given up. All ranks. Raises RanksError."""
    timeout = session.settings.flush_timeout
    if session.uploader is not None:
        wait_for_uploads(session.uploader, timeout, shown=session.progress)
    session.ranks.gather(None, timeout=timeout + 60)
