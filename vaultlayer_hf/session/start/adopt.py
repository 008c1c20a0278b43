"""Adopt: go on from a complete local snapshot that is newer than the newest commit, then commit it.

A snapshot counts only if its token is that of the newest claim before ours, so that nobody else has written since, and
if it is sealed and every digest holds, or whole: written by all ranks on this boot of this machine, not sealed yet, and
untouched since. The latter is sealed here, before anything is loaded from it. A start that dies while it adopts on this
disk, and has committed nothing, passes on what it found: a note in its folder says whose snapshots those are. One that
dies ahead of that, right behind its claim, has left a note, too (claiming.py). With
several nodes a snapshot counts only if all of its parts are there; they are then committed first, and each node
restores what it lacks from the vault. One node goes on at once, and commits in the background.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import checkpoints, settle
from vaultlayer_hf.session.save.plan import NodeFiles, UploadPlan, divide
from vaultlayer_hf.session.save.rounds import queue_upload
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.waiting import wait_for_uploads
from vaultlayer_hf.state.layouts import torn_files
from vaultlayer_hf.vault.adoptable import begin_adopting, end_adopting, find_adoptable
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore.restore import place
from vaultlayer_hf.vault.snapshot import Snapshot, list_files, local_folder, move, verify
from vaultlayer_hf.vault.unfrozen import UNFROZEN, freeze_unfrozen
from vaultlayer_hf.vault.workspace import workspace

Differs = Callable[[Manifest], str]


def adopt(
    session: Session,
    before: VaultState,
    expected: CheckpointFiles,
    differs: Differs,
    spared: Collection[Commit] = (),
    writers: Collection[int] = (),
    looked: Callable[[], object] = lambda: None,
) -> Manifest | None:
    """Adopt the newest snapshot that counts. All ranks.

    ``spared``: commits that the run has left behind, and that aren't retired. ``writers``: tokens of those whose
    snapshots count beside the newest claim's, which has died behind its claim. ``differs`` says how the model that has
    written a snapshot differs from this run's; empty where it doesn't. ``looked`` is called when every node has noted
    what it has found.
    Returns its manifest where this run goes on from it right away: it is at ``output_dir/checkpoint-<step>`` then,
    and its upload is queued. None where there is none, or where it has just been committed and is to be restored
    like any other. Raises, on all ranks, RanksError, ResumeError (a disk).
    """
    found = _find(session, before, expected, writers) if session.leads_node else []
    adopted = _adopt(session, before, found, expected, differs, spared, looked)
    if found and adopted is None:
        with contextlib.suppress(OSError):  # what is left there is of no use any more, and does no harm
            end_adopting(session.snapshots)
    return adopted


def _find(
    session: Session, before: VaultState, expected: CheckpointFiles, writers: Collection[int]
) -> list[Snapshot]:
    """Return this node's snapshots that count; a start that is cut short from here on leaves them to the next one."""
    try:
        places = (session.output_dir, *session.former)
        for output_dir in places:
            for token in (before.token, *writers):
                _freeze(session, output_dir, before, token, expected)
        found, passed = find_adoptable(places, before, writers)
        for other in passed:
            session.events.warn(
                EventKind.WALK_BACK,
                f"{other.name} on this disk isn't gone on from: it was not yet sealed, and {other.reason}",
                seq=other.seq,
            )
        if found:
            begin_adopting(session.snapshots, before.token)
        _say_half_written(session, before, found, expected)
    except Exception as error:  # no snapshot can be had, then, and no other rank waits for the news
        folder = session.snapshots.parent
        session.events.warn(
            EventKind.TROUBLE, f"the snapshots in {folder} can't be read, none is adopted: {error}"
        )
        return []
    return found


def _freeze(
    session: Session, output_dir: Path, before: VaultState, token: int, expected: CheckpointFiles
) -> None:
    """Freeze what a dead writer had written, and had no time to freeze; say why not, where it isn't whole."""
    alone = session.topology is None or len(session.topology.nodes) == 1

    def unfinished(folder: Path, paths: set[str], manifest: Manifest) -> list[str]:
        # What a node of several lacks is judged when all have said what they hold.
        lacking = expected.missing(paths, world_size=manifest.world_size) if alone else []
        return lacking or torn_files(folder, paths)

    writer = local_folder(output_dir, before.vault_id, token)
    committed = max((commit.seq for commit in before.commits if commit.token == token), default=0)
    other = freeze_unfrozen(writer, output_dir, committed, unfinished, expected.best_step)
    if other is not None:
        session.events.info(
            EventKind.NOTICE,
            f"{other.name} on this disk isn't gone on from: its save hadn't returned, and {other.reason}",
            seq=other.seq,
        )


def _say_half_written(
    session: Session, before: VaultState, found: list[Snapshot], expected: CheckpointFiles
) -> None:
    """Say which newer checkpoint folder is passed over because a kill has cut it short. On rank 0."""
    if (
        session.ranks.rank != 0
        or (local_folder(session.output_dir, before.vault_id, before.token) / UNFROZEN).exists()
    ):
        return
    known = [snapshot.manifest.step for snapshot in found] + [commit.step for commit in before.commits]
    for step, path in checkpoints(session.output_dir).items():
        if step > max(known, default=0):
            lacking = expected.missing(set(list_files(path)), world_size=session.ranks.world_size)
            if lacking:
                session.events.info(
                    EventKind.NOTICE,
                    f"{path.name} on this disk isn't gone on from: its save hadn't returned, and it lacks "
                    f"{', '.join(lacking)}",
                    step=step,
                )


def _adopt(
    session: Session,
    before: VaultState,
    snapshots: list[Snapshot],
    expected: CheckpointFiles,
    differs: Differs,
    spared: Collection[Commit],
    looked: Callable[[], object],
) -> Manifest | None:
    found = {(snapshot.manifest.token, snapshot.seq): snapshot for snapshot in snapshots}
    here = [list(key) for key in found] if session.leads_node else None
    common, heads = session.ranks.decide(here, _common)
    looked()
    newest = before.newest
    for token, seq in common:
        last = newest if newest is not None and newest.token == token else None  # the dead writer's own
        snapshot, listing = (
            _look(session, found[token, seq], expected) if session.leads_node else (None, NodeFiles())
        )
        judgement = session.ranks.decide(
            listing,
            lambda listings, own=snapshot: _judge(session, own, listings, expected, differs),  # type: ignore[misc]
            timeout=session.settings.flush_timeout,
        )
        if judgement.reason is not None:
            session.warn_all(
                EventKind.WALK_BACK, f"the local snapshot {seq} isn't adopted: {judgement.reason}", seq=seq
            )
            continue
        manifest, mine = judgement.manifest, session.next_seq()
        # Not simply the newest commit: that may be the one that the dead writer found corrupted and went around.
        origin = last or before.origin(manifest.resumed_from)
        handover = _Handover(session, snapshot, mine, origin, expected if heads == 1 else None)
        # All wait here: nobody loads before the folder is in place.
        session.ranks.on_every_rank(handover, timeout=session.settings.flush_timeout)
        state = "sealed" if judgement.sealed else "whole, not yet sealed, same boot"
        session.events.info(
            EventKind.ADOPT,
            f"checkpoint-{manifest.step} was complete on {'this disk' if heads == 1 else 'all nodes'} ({state}) and "
            f"newer than the newest commit: adopted, the run goes on from step {manifest.step}",
            step=manifest.step,
        )
        session.start_uploads(origin, spared=spared)
        queue_upload(session, handover.snapshot, judgement.plan)
        if heads == 1:
            return manifest
        _settle_uploads(session)
        return None
    return None


def _settle_uploads(session: Session) -> None:
    """Wait until what is queued on any node is carried or given up. All ranks. Raises RanksError."""
    timeout = session.settings.flush_timeout
    if session.uploader is not None:
        wait_for_uploads(session.uploader, timeout, shown=session.progress)
    session.ranks.gather(None, timeout=timeout + 60)


@dataclass(frozen=True)
class Judgement:
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


class _Handover:
    """Hands this node's snapshot over to this run; and puts it in place, where ``expected`` says how.

    Attributes:
        snapshot: the one handed over; None on ranks that lead no node.
    """

    def __init__(
        self,
        session: Session,
        snapshot: Snapshot | None,
        seq: int,
        origin: Commit | None,
        expected: CheckpointFiles | None,
    ) -> None:
        self.snapshot = snapshot
        self._session, self._seq, self._expected = session, seq, expected
        self._origin = origin.number if origin else None

    def __call__(self) -> None:
        if self.snapshot is None:
            return
        session = self._session
        token = session.entered.token
        self.snapshot = move(self.snapshot, session.snapshots, self._seq, token, self._origin)
        end_adopting(session.snapshots)
        if self._expected is not None:
            _put_in_place(session, self.snapshot, self._expected)


def _common(heads: list[list[list[int]] | None]) -> tuple[list[list[int]], int]:
    """Return [token, seq] of the snapshots that are on all nodes, newest first, and how many nodes there are. Pure."""
    keys = [{(token, seq) for token, seq in found} for found in heads if found is not None]
    return [list(key) for key in sorted(set.intersection(*keys), reverse=True)], len(keys)


def _judge(
    session: Session,
    own: Snapshot | None,
    listings: list[NodeFiles],
    expected: CheckpointFiles,
    differs: Differs,
) -> Judgement:
    """Decide on rank 0 whether a snapshot counts."""
    assert own is not None
    manifest, here = own.manifest, session.ranks.world_size
    plan = replace(divide(listings), folder=session.name_folder(own.name, session.coming_seq))
    reason = next((item.error for item in listings if item.error is not None), None)
    if reason is None and (lacking := expected.missing(set(plan.paths), world_size=manifest.world_size)):
        reason = f"it lacks {', '.join(lacking)}, so a resume would not be the same run"
    if reason is None and manifest.world_size != here:
        reason = f"{manifest.world_size} ranks have written it, and this run has {here}"
    if reason is None and (words := differs(manifest)):
        reason = f"it belongs to another model: {words}"
    sealed = all(listing.sealed for listing in listings)
    return Judgement(manifest, replace(plan, paths=frozenset()), reason, sealed)


def _look(
    session: Session, snapshot: Snapshot, expected: CheckpointFiles
) -> tuple[Snapshot | None, NodeFiles]:
    """Verify this node's part of a snapshot, or seal it, and try whether it can be loaded."""
    try:
        sound = verify(snapshot)
    except Exception as error:  # of whatever kind: unsaid, the other ranks would wait for this one
        return snapshot, NodeFiles(session.node, error=str(error))
    unloadable = expected.unloadable(sound.files, sound.manifest.paths)
    if unloadable:
        return sound, NodeFiles(session.node, error="; ".join(unloadable))
    return sound, NodeFiles(session.node, tuple(sorted(sound.stats)), sealed=snapshot.sealed)


def _put_in_place(session: Session, snapshot: Snapshot, expected: CheckpointFiles) -> None:
    """Make a snapshot appear as a checkpoint folder in ``output_dir``."""
    staging = workspace(session.output_dir) / f"restore-{uuid.uuid4().hex}"
    for entry in snapshot.manifest.files:
        target = staging / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not files.link(snapshot.files / entry.path, target):
            shutil.copyfile(snapshot.files / entry.path, target)
    changed = expected.localised(staging, session.output_dir, snapshot.manifest.versions)
    for name, data in changed.items():
        files.write_file(staging / name, data)
    place(staging, session.output_dir / snapshot.name)
    settle(session.output_dir, snapshot.manifest.step)
