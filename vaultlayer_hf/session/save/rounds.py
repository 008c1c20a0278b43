"""A save of all ranks: agreed in two short rounds on the main thread, then carried by background threads.

1. Every rank says that it has written its files. `on_save` fires on rank 0 before the others have written
   theirs, so only after this round is the folder complete. Here too all ranks learn whether to stop, and how the
   uploads of the saves before are getting on.
2. Each node's leader freezes its folder and tells rank 0 which files it holds. A file that several nodes hold
   is the lowest node's to send, so each file is uploaded once and a node sends what only it has. What all have
   agreed on is noted in the snapshot before training goes on: a kill from then on doesn't lose it.

A rank that doesn't answer in time costs that checkpoint, never the run. With one rank both rounds are free.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.errors import FencedError, RanksError, VaultLayerError
from vaultlayer_hf.session.output_dir import checkpoints
from vaultlayer_hf.session.save.abandoned import say_abandoned
from vaultlayer_hf.session.save.full_disk import freed_text, is_full, make_room
from vaultlayer_hf.session.save.nonfinite import note_nonfinite
from vaultlayer_hf.session.save.plan import NodeFiles, RankStatus, Save, SaveSummary, UploadPlan, divide
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.vault.keys import folder_key
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.finite import read_nonfinite
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.snapshot import Snapshot, note_whole, take_snapshot
from vaultlayer_hf.vault.unfrozen import forget_unfrozen, note_unfrozen
from vaultlayer_hf.vault.upload.job import Job, Unloadable, all_loadable

_TOLD = 4
"""How many of the newest commits rank 0 tells the other ranks at each save: more than are made between two saves."""


def clear_folder(session: Session, folder: Path, count: int) -> None:
    """Remove a checkpoint folder of this run, or of one before, that is about to be written again. All ranks.

    ``count``: how often that has been done, so that ranks don't wait for each other in a round that is over.
    """
    if session.leads_node and folder.name in session.standing:
        files.remove_tree(folder)
        session.standing.discard(folder.name)
    if session.ranks.world_size > 1:
        try:
            session.ranks.gather(None, tag=f"clear/{count}")
        except RanksError as error:
            session.events.warn(EventKind.TROUBLE, f"{error}: {folder.name} may be left out")


def _mirror_rotation(session: Session, keep: Sequence[str], step: int) -> None:
    """Remove checkpoint folders that rank 0's disk has rotated away; for nodes on which nobody else does."""
    try:
        for number, path in checkpoints(session.output_dir).items():
            if number < step and path.name not in keep:
                files.remove_tree(path)
    except OSError as error:
        what = f"old checkpoints can't be removed from {session.output_dir}: {error}"
        session.events.warn_once("rotation", EventKind.TROUBLE, what)


def save(session: Session, save: Save, seq: int) -> None:
    """Carry out a save; what goes wrong costs this checkpoint and is reported. Raises FencedError. All ranks."""
    try:
        _save(session, save, seq)
    except FencedError:
        raise
    except RanksError as error:  # where it is the end of all, the next start may find that all have written
        say_abandoned(session, save.folder.name, str(error), step=save.step)
        return
    except Exception as error:  # no mistake of ours may end a training
        reason = f"unexpected {type(error).__name__}: {error}"
        if session.ranks.rank == 0:
            say_abandoned(session, save.folder.name, reason, step=save.step)
        else:  # rank 0 doesn't know of it
            session.events.warn(EventKind.TROUBLE, f"{save.folder.name} isn't uploaded from here: {reason}")
    forget_written(session)


def note_written(session: Session, save: Save) -> None:
    """Note that a checkpoint folder is written but for its last file, ahead of its ``save``. Raises nothing."""
    if not session.leads_node:
        return
    try:
        note_unfrozen(session.snapshots, save.folder, _manifest(session, save, session.coming_seq))
    except (OSError, VaultLayerError) as error:
        what = f"{save.folder.name}: a kill before all ranks have written it loses it: {error}"
        session.events.warn_once(f"unfrozen {type(error).__name__}", EventKind.TROUBLE, what)


def forget_written(session: Session) -> None:
    """Remove what ``note_written`` has noted: the folder has a snapshot now, or was given up. Raises nothing."""
    if session.leads_node:
        # Where it stays, another save writes over it, and a start sees that it is of no use.
        with contextlib.suppress(OSError):
            forget_unfrozen(session.snapshots)


def _save(session: Session, save: Save, seq: int) -> None:
    ranks, timeout = session.ranks, session.settings.part_timeout
    status = replace(status_of(session), nonfinite=save.nonfinite)
    summary = ranks.decide(
        status, lambda found: summarise(session, found, seq), tag=f"save/{seq}", timeout=timeout
    )
    apply_summary(session, summary)
    session.stop_if_fenced(summary.fenced)
    if session.disabled:
        return
    note_nonfinite(session, save, summary.nonfinite)
    snapshot, listing = _freeze(session, save, seq) if session.leads_node else (None, NodeFiles())
    try:
        plan = ranks.decide(
            listing,
            lambda listings: _plan(session, save, seq, listings),
            tag=f"listed/{seq}",
            timeout=timeout,
        )
    except BaseException:
        if snapshot is not None:
            snapshot.remove()
        raise
    if plan.objection is not None:
        if snapshot is not None:
            snapshot.remove()
        say_abandoned(session, save.folder.name, plan.objection, step=save.step)
        if save.failed is not None and session.leads_node:
            files.remove_tree(save.folder)
        return
    noted = _note(session, snapshot)
    forget_written(session)  # ahead of the upload, so that a save's operations have one order
    queue_upload(session, noted, plan, save.files.unloadable)
    if session.leads_node and not save.rotates:
        _mirror_rotation(session, plan.folders, save.step)
    session.apply_local_retention()


def _note(session: Session, snapshot: Snapshot | None) -> Snapshot | None:
    """Make a snapshot count before it is sealed: from here on a kill doesn't lose it."""
    if snapshot is None:
        return None
    try:
        return note_whole(snapshot)
    except (OSError, VaultLayerError) as error:
        what = f"a kill before it is hashed on this disk loses it: {error}"
        session.events.warn_once(
            f"note {type(error).__name__}", EventKind.TROUBLE, f"{snapshot.name}: {what}"
        )
        return snapshot


def is_of(commit: Commit, name: str, seq: int) -> bool:
    """Tell whether a commit is of save number ``seq`` of a folder of this name.

    A second save of one step has its number behind the folder's name in the vault: see ``folder_name``.
    """
    return commit.seq == seq and commit.name in (name, f"{name}.{seq}")


def queue_upload(
    session: Session, snapshot: Snapshot | None, plan: UploadPlan, unloadable: Unloadable = all_loadable
) -> None:
    """Queue this node's snapshot of a checkpoint that all ranks have agreed on. All ranks.

    ``snapshot``: None on ranks that lead no node. ``unloadable`` tries its files, where that hasn't been done.
    """
    uploader = session.uploader
    if snapshot is None or uploader is None:
        return
    folder = folder_key(session.entered.token, plan.folder)
    share = plan.share_of(session.node, snapshot.stats)
    job = Job(snapshot, folder, share, plan.others, read_nonfinite(snapshot.files), unloadable)
    session.part_bytes = sum(size for path, (size, _) in snapshot.stats.items() if path in (job.only or ()))
    if session.writer is not None or job.only:
        uploader.submit(job)
    else:
        snapshot.remove()


def status_of(session: Session) -> RankStatus:
    """Return what this rank has to say of its uploads."""
    uploader = session.uploader
    if uploader is None:
        return RankStatus(session.node)
    fenced = str(uploader.fenced) if uploader.fenced is not None else None
    trouble = f"{platform.node()}: {uploader.trouble}" if uploader.trouble else None
    return RankStatus(session.node, fenced, trouble)


def summarise(session: Session, statuses: Sequence[RankStatus], seq: int | None = None) -> SaveSummary:
    """Return what all ranks should know; ``seq`` is the save that is coming. On rank 0."""
    carried = session.uploader.carried if session.uploader is not None else ()
    troubles = tuple(
        (rank, status.node, status.trouble) for rank, status in enumerate(statuses) if rank and status.trouble
    )
    return SaveSummary(
        fenced=next((status.fenced for status in statuses if status.fenced), None),
        troubles=troubles,
        wanted=(*carried, *([seq] if seq is not None else [])),
        commits=session.newest_commits(_TOLD),
        best_step=session.state.best_step,
        nonfinite=next((status.nonfinite for status in statuses if status.nonfinite), ""),
    )


def apply_summary(session: Session, summary: SaveSummary) -> None:
    """Take in what rank 0 has made of the statuses."""
    uploader = session.uploader
    if session.ranks.rank != 0:
        session.learn(summary.commits, summary.best_step)
        if uploader is not None:
            uploader.follow(summary.wanted, summary.commits)
        return
    if uploader is not None:
        uploader.note_troubles({node: trouble for _, node, trouble in summary.troubles})
    for rank, _, trouble in summary.troubles:
        exposure = uploader.exposure() if uploader is not None else ""
        session.events.warn(EventKind.TROUBLE, f"rank {rank} on {trouble}; {exposure}", rank=rank)


def _plan(session: Session, save: Save, seq: int, listings: Sequence[NodeFiles]) -> UploadPlan:
    """Decide on rank 0 who sends what, and whether the checkpoint is whole."""
    plan = divide(listings)
    objection = save.failed
    for rank, listing in enumerate(listings):
        if listing.error is not None and objection is None:
            objection = f"rank {rank}: {listing.error}" if len(listings) > 1 else listing.error
    if objection is None:
        try:
            world_size = session.ranks.world_size
            lacking = save.files.unwritten(save.folder, set(plan.paths), world_size=world_size)
        except Exception as error:  # whatever the seam meets in a damaged folder
            lacking = [f"what can be read ({error})"]
        objection = f"it lacks {', '.join(lacking)}" if lacking else None
    folder = session.name_folder(save.folder.name, seq) if objection is None else ""
    return replace(plan, folder=folder, paths=frozenset(), objection=objection, folders=listings[0].folders)


def _freeze(session: Session, save: Save, seq: int) -> tuple[Snapshot | None, NodeFiles]:
    """Take the snapshot of this node's folder, and say what it holds."""
    try:
        snapshot = _taken(session, save, seq)
    except Exception as error:  # of whatever kind: unsaid, the other ranks would wait for this one
        where = f"on {platform.node()}, " if session.ranks.world_size > 1 else ""
        what = (
            str(error)
            if isinstance(error, (OSError, VaultLayerError))
            else f"{type(error).__name__}: {error}"
        )
        return None, NodeFiles(session.node, error=f"{where}it can't be copied for upload: {what}")
    if not snapshot.linked:
        session.events.warn_once(
            "links",
            EventKind.NOTICE,
            f"{session.output_dir} lies on a file system without hard links: each save is copied, and training "
            "waits for the copy; an output_dir on a local disk avoids that",
        )
    folders = tuple(path.name for path in session.output_dir.glob("checkpoint-*"))
    return snapshot, NodeFiles(session.node, tuple(sorted(snapshot.stats)), folders=folders)


def _taken(session: Session, save: Save, seq: int) -> Snapshot:
    """Take the snapshot; on a full disk once more, without local copies of what the vault holds.

    Raises as ``take_snapshot``.
    """
    manifest = _manifest(session, save, seq)
    try:
        return take_snapshot(save.folder, session.snapshots, seq, manifest, save.known)
    except Exception as error:
        keep = {save.step, *([save.best_step] if save.best_step is not None else [])}
        if not (
            is_full(error, session.output_dir) and make_room(session, session.newest_commits(_TOLD), keep)
        ):
            raise
    session.events.warn_once("full disk", EventKind.TROUBLE, freed_text(session, "copied for upload"))
    return take_snapshot(save.folder, session.snapshots, seq, manifest, save.known)


def _manifest(session: Session, save: Save, seq: int) -> Manifest:
    """Return what is known of a save before its files are."""
    return Manifest(
        step=save.step,
        token=session.entered.token,
        seq=seq,
        files=(),
        world_size=session.ranks.world_size,
        parameters=save.parameters,
        best_step=save.best_step,
        resumed_from=session.resumed_from,
        saved_at=time.time(),
        versions=versions(),
    )
