"""Adopt: go on from a complete local snapshot that is newer than the newest commit, then commit it.

A snapshot counts only if it is sealed, every digest holds, and its token is that of the newest claim before
ours: nobody else has written since. With several nodes it counts only if all of its parts are there; they are
then committed first, and each node restores what it lacks from the vault. One node goes on at once, and commits
in the background.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from vaultlayer_hf import files
from vaultlayer_hf.errors import CorruptError
from vaultlayer_hf.local import settle
from vaultlayer_hf.saving import Listing, divide
from vaultlayer_hf.session import Session
from vaultlayer_hf.vault.entry import State
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.restore import place
from vaultlayer_hf.vault.snapshot import LOCAL, Snapshot, find_sealed, local_folder, move, verify

Missing = Callable[[set[str], int], list[str]]
Localise = Callable[[Path, Path], dict[str, bytes]]
Differs = Callable[[Manifest], str]


def adopt(
    session: Session, before: State, missing: Missing, localise: Localise, differs: Differs
) -> Manifest | None:
    """Adopt the newest snapshot that counts. All ranks.

    ``differs`` says how the model that has written a snapshot differs from this run's; empty where it doesn't.
    Returns its manifest where this run goes on from it right away: it is at ``output_dir/checkpoint-<step>`` then,
    and its upload is queued. None where there is none, or where it has just been committed and is to be restored
    like any other. Raises RanksError, OSError.
    """
    newest = before.newest
    last = newest if newest is not None and newest.token == before.token else None  # the dead writer's own
    floor = last.seq if last else 0
    found: dict[int, Snapshot] = {}
    if session.leads:
        folder = local_folder(session.output_dir, before.vault_id, before.token)
        found = {snapshot.seq: snapshot for snapshot in find_sealed(folder) if snapshot.seq > floor}
    heads = [
        seqs for seqs in session.ranks.gather(sorted(found) if session.leads else None) if seqs is not None
    ]
    for seq in sorted(set.intersection(*map(set, heads)), reverse=True):
        snapshot, listing = _look(session, found[seq]) if session.leads else (None, Listing())
        listings = session.ranks.gather(listing, timeout=session.settings.flush_timeout)
        plan = divide(listings)
        reason = next((item.error for item in listings if item.error is not None), None)
        manifest: Manifest = session.ranks.share(snapshot.manifest if snapshot is not None else None)
        if reason is None:
            lacking = missing(set(plan.paths), manifest.world_size)
            reason = (
                f"it lacks {', '.join(lacking)}, so a resume would not be the same run" if lacking else None
            )
        if reason is None and manifest.world_size != session.ranks.world_size:
            reason = (
                f"{manifest.world_size} ranks have written it, and this run has {session.ranks.world_size}"
            )
        if reason is None and (words := differs(manifest)):
            reason = f"it belongs to another model: {words}"
        if reason is not None:
            session.events.warn(
                "walk-back", f"the local snapshot {seq} isn't adopted: {reason}", reason=reason
            )
            continue
        mine = session.next_seq()
        # Not simply the newest commit: that may be the one that the dead writer found corrupted and went around.
        origin = last or before.origin(manifest.resumed_from)
        if snapshot is not None:
            number = origin.number if origin else None
            snapshot = move(snapshot, session.snapshots, mine, session.entered.token, number)
        if len(heads) == 1 and snapshot is not None:
            _put_in_place(session, snapshot, localise)
        session.events.info(
            "adopt",
            f"checkpoint-{manifest.step} was complete on {'this disk' if len(heads) == 1 else 'all nodes'} and newer "
            f"than the newest commit: adopted, the run goes on from step {manifest.step}",
            step=manifest.step,
        )
        session.start_uploads(origin)
        session.carry(snapshot, f"checkpoint-{manifest.step}", mine, plan)
        if len(heads) == 1:
            session.ranks.share(None)  # nobody loads before the folder is in place
            return manifest
        session.settle_uploads()
        return None
    return None


def _look(session: Session, snapshot: Snapshot) -> tuple[Snapshot | None, Listing]:
    """Verify this node's part of a snapshot."""
    try:
        sound = verify(snapshot)
    except (CorruptError, OSError) as error:
        return snapshot, Listing(session.node, error=str(error))
    return sound, Listing(session.node, tuple(sorted(sound.stats)))


def _put_in_place(session: Session, snapshot: Snapshot, localise: Localise) -> None:
    """Make a snapshot appear as a checkpoint folder in ``output_dir``."""
    staging = session.output_dir / LOCAL / f"restore-{uuid.uuid4().hex}"
    for entry in snapshot.manifest.files:
        target = staging / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not files.link(snapshot.files / entry.path, target):
            shutil.copyfile(snapshot.files / entry.path, target)
    for name, data in localise(staging, session.output_dir).items():
        files.write_file(staging / name, data)
    place(staging, session.output_dir / snapshot.name)
    settle(session.output_dir, snapshot.manifest.step)
