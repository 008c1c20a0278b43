"""Which snapshots on this node's disk a start may go on from; what a dead run had no time to freeze is frozen first.

A snapshot counts only if its token is that of the newest claim before ours, so that nobody else has written since, and
if it is sealed, or whole: written by all ranks on this boot of this machine, not sealed yet, and untouched since.

A start may itself die before it has committed what it found. The next one then sees two claims, of the run and of the
start, and must still find the run's snapshots. So each start says in the folder of its own snapshots whose it is about
to adopt (``begin_adopting``), and, ahead of its claim, in a note of its own (claiming.py).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.output_dir import checkpoints
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.layouts import torn_files
from vaultlayer_hf.vault.adoptable import begin_adopting, find_adoptable
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.snapshot import Snapshot, list_files, local_folder
from vaultlayer_hf.vault.unfrozen import UNFROZEN, freeze_unfrozen


def find_local_snapshots(
    session: Session, before: VaultState, seam_files: CheckpointFiles, writers: Collection[int]
) -> list[Snapshot]:
    """Return this node's snapshots that count; a start that is cut short from here on leaves them to the next one.

    ``before``: the vault's state before this start's claim. ``writers``: tokens of those whose snapshots count beside
    the newest claim's. On leaders; raises nothing.
    """
    try:
        places = (session.output_dir, *session.former)
        for output_dir in places:
            for token in (before.token, *writers):
                _freeze_unfrozen(session, output_dir, before, token, seam_files)
        found, passed = find_adoptable(places, before, writers)
        for other in passed:
            session.events.warn(
                EventKind.WALK_BACK,
                f"{other.name} on this disk isn't gone on from: it was not yet sealed, and {other.reason}",
                seq=other.seq,
            )
        if found:
            begin_adopting(session.snapshots, before.token)
        _say_half_written(session, before, found, seam_files)
    except Exception as error:  # no snapshot can be had, then, and no other rank waits for the news
        folder = session.snapshots.parent
        session.events.warn(
            EventKind.TROUBLE, f"the snapshots in {folder} can't be read, none is adopted: {error}"
        )
        return []
    return found


def _freeze_unfrozen(
    session: Session, output_dir: Path, before: VaultState, token: int, seam_files: CheckpointFiles
) -> None:
    """Freeze what a dead writer had written, and had no time to freeze; say why not, where it isn't whole."""
    alone = session.topology is None or len(session.topology.nodes) == 1

    def unfinished(folder: Path, paths: set[str], manifest: Manifest) -> list[str]:
        # What a node of several lacks is judged when all have said what they hold.
        lacking = seam_files.missing(paths, world_size=manifest.world_size) if alone else []
        return lacking or torn_files(folder, paths)

    writer = local_folder(output_dir, before.vault_id, token)
    committed = max((commit.seq for commit in before.commits if commit.token == token), default=0)
    other = freeze_unfrozen(writer, output_dir, committed, unfinished, seam_files.best_step)
    if other is not None:
        session.events.info(
            EventKind.NOTICE,
            f"{other.name} on this disk isn't gone on from: its save hadn't returned, and {other.reason}",
            seq=other.seq,
        )


def _say_half_written(
    session: Session, before: VaultState, found: list[Snapshot], seam_files: CheckpointFiles
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
            lacking = seam_files.missing(set(list_files(path)), world_size=session.ranks.world_size)
            if lacking:
                session.events.info(
                    EventKind.NOTICE,
                    f"{path.name} on this disk isn't gone on from: it lacks {', '.join(lacking)}, as where a kill cut "
                    "its save short, or where another run wrote it",
                    step=step,
                )
