"""A save of all ranks: agreed in two short rounds on the main thread, then carried by background threads.

1. Every rank says that it has written its files. `on_save` fires on rank 0 before the others have written
   theirs, so only after this round is the folder complete. Here too all ranks learn whether to stop.
2. Each node's leader freezes its folder and tells which files it holds. A file that several nodes hold is
   the lowest node's to send, so each file is uploaded once and a node sends what only it has.

A rank that doesn't answer in time costs that checkpoint, never the run. With one rank both rounds are free.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vaultlayer_hf import files
from vaultlayer_hf._version import versions
from vaultlayer_hf.errors import FencedError, RanksError, VaultLayerError
from vaultlayer_hf.fingerprint import Parameters
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.snapshot import Snapshot, take

if TYPE_CHECKING:
    from vaultlayer_hf.session import Session


@dataclass(frozen=True)
class Save:
    """What the seam tells about a checkpoint folder that has just been written.

    Attributes:
        folder: where it is on this rank's disk.
        step: global step.
        missing: returns what a folder with these files lacks; empty means that it may be committed.
        parameters: of the model.
        best_step: step of the best checkpoint so far, or None.
        rotates: whether the Trainer itself rotates old folders on this rank's disk.
    """

    folder: Path
    step: int
    missing: Callable[[Path, set[str]], list[str]]
    parameters: Parameters = ()
    best_step: int | None = None
    rotates: bool = True


@dataclass(frozen=True)
class Word:
    """What each rank says in the first round: that it has written, why to stop, and what troubles its uploads."""

    fenced: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Listing:
    """What each node's leader says in the second round; the other ranks say nothing of their own.

    Attributes:
        node: number of the node; None from ranks that lead none.
        paths: files that lie in the node's folder.
        error: why the folder could not be frozen.
        folders: names of the checkpoint folders on the disk, after rotation.
    """

    node: int | None = None
    paths: tuple[str, ...] = ()
    error: str | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Who sends what of one checkpoint.

    Attributes:
        paths: all files, of all nodes.
        owners: the paths that each node sends.
    """

    paths: frozenset[str]
    owners: dict[int, frozenset[str]] = field(default_factory=dict)

    @property
    def others(self) -> tuple[int, ...]:
        """The nodes other than 0 that have something to send."""
        return tuple(node for node, paths in sorted(self.owners.items()) if node != 0 and paths)


def divide(listings: Sequence[Listing]) -> Plan:
    """Give each file to the lowest node that holds it. Pure."""
    owners: dict[int, frozenset[str]] = {}
    taken: set[str] = set()
    for listing in sorted(
        (item for item in listings if item.node is not None), key=lambda item: item.node or 0
    ):
        assert listing.node is not None
        owners[listing.node] = frozenset(set(listing.paths) - taken)
        taken |= set(listing.paths)
    return Plan(frozenset(taken), owners)


def mirror_rotation(output_dir: Path, keep: Sequence[str], step: int) -> None:
    """Remove checkpoint folders that rank 0's disk has rotated away; for nodes on which nobody else does."""
    for path in output_dir.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if path.is_dir() and number.isdigit() and int(number) < step and path.name not in keep:
            files.remove_tree(path)


def save(session: Session, save: Save, seq: int) -> None:
    """Carry out a save; what goes wrong costs this checkpoint and is reported. Raises FencedError. All ranks."""
    try:
        _save(session, save, seq)
    except FencedError:
        raise
    except RanksError as error:
        _abandon(session, save, str(error))
    except Exception as error:  # no mistake of ours may end a training
        _abandon(session, save, f"unexpected {type(error).__name__}: {error}")


def _save(session: Session, save: Save, seq: int) -> None:
    uploader = session.uploader
    fenced = str(uploader.fenced) if uploader is not None and uploader.fenced is not None else None
    trouble = f"{platform.node()}: {uploader.trouble}" if uploader is not None and uploader.trouble else None
    words = session.ranks.gather(
        Word(fenced, trouble), tag=f"save/{seq}", timeout=session.settings.part_timeout
    )
    session.stop_if_fenced(next((word.fenced for word in words if word.fenced), None))
    if session.disabled:
        return
    snapshot, listing = _freeze(session, save, seq) if session.leads else (None, Listing())
    listings = session.ranks.gather(listing, tag=f"listed/{seq}", timeout=session.settings.part_timeout)
    plan = divide(listings)
    reason = _objection(session, save, plan, listings)
    if reason is not None:
        if snapshot is not None:
            snapshot.remove()
        _abandon(session, save, reason)
        return
    if session.ranks.rank == 0:
        _report_others(session, words)
    if session.leads and not save.rotates:
        mirror_rotation(session.output_dir, listings[0].folders, save.step)
    session.carry(snapshot, save.folder.name, seq, plan)
    session.apply_local_retention()


def _freeze(session: Session, save: Save, seq: int) -> tuple[Snapshot | None, Listing]:
    """Take the snapshot of this node's folder, and say what it holds."""
    manifest = Manifest(
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
    try:
        snapshot = take(save.folder, session.snapshots, seq, manifest)
    except (OSError, VaultLayerError) as error:
        return None, Listing(session.node, error=f"it can't be copied for upload: {error}")
    if not snapshot.linked:
        session.events.warn_once(
            "links",
            "notice",
            f"{session.output_dir} lies on a file system without hard links: each save is copied, and training "
            "waits for the copy; an output_dir on a local disk avoids that",
        )
    folders = tuple(path.name for path in session.output_dir.glob("checkpoint-*"))
    return snapshot, Listing(session.node, tuple(sorted(snapshot.stats)), folders=folders)


def _objection(session: Session, save: Save, plan: Plan, listings: list[Listing]) -> str | None:
    for rank, listing in enumerate(listings):
        if listing.error is not None:
            return f"rank {rank}: {listing.error}" if session.ranks.world_size > 1 else listing.error
    try:
        lacking = save.missing(save.folder, set(plan.paths)) if session.ranks.rank == 0 else []
    except (OSError, ValueError, VaultLayerError) as error:
        lacking = [f"what can be read ({error})"]
    if session.ranks.world_size > 1:
        lacking = session.ranks.share(lacking)
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _abandon(session: Session, save: Save, reason: str) -> None:
    if session.ranks.rank == 0:
        exposure = f"; {session.uploader.exposure()}" if session.uploader is not None else ""
        session.events.warn(
            "abandon",
            f"{save.folder.name} isn't committed, training goes on: {reason}{exposure}",
            step=save.step,
            reason=reason,
        )


def _report_others(session: Session, words: list[Word]) -> None:
    for rank, word in enumerate(words):
        if rank != 0 and word.trouble is not None:
            exposure = session.uploader.exposure() if session.uploader is not None else ""
            session.events.warn("trouble", f"rank {rank} on {word.trouble}; {exposure}", rank=rank)
