"""The note ``unfrozen.json`` of a writer: the checkpoint folder that it is saving, of which there is no snapshot yet.

Between the last file of a checkpoint and its snapshot lie the rotation of older checkpoints, a push to a hub, and the
wait for the other ranks: milliseconds, or seconds. A kill there leaves a folder that looks whole, and may be. Nobody
else knows that it is this writer's, so the writer says so before the last file is written. The next start then freezes
it in the dead one's place, where it can be told to be whole:

- on the same boot, because what a process has closed is the kernel's, and no more than that (see written.py);
- each file that was there when the note was written looks as it did;
- nothing is lacking, the file that is written last included, and none is torn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.vault.adoptable import PassedOver
from vaultlayer_hf.vault.manifest import Manifest
from vaultlayer_hf.vault.snapshot import SEAL, list_files, note_whole, take_snapshot
from vaultlayer_hf.vault.written import NOTE, Written, boot_id, look_at, read_note, why_not, write_note

UNFROZEN = "unfrozen.json"
"""The note's name in a writer's folder."""


def note_unfrozen(writer: Path, source: Path, manifest: Manifest) -> None:
    """Note that ``source`` is written but for its last file. Raises OSError, VaultLayerError.

    ``writer``: the folder of its snapshots. How each file looks is noted where one rank has written all of them; where
    there are several, the others may be writing theirs.
    """
    names = list_files(source) if manifest.world_size == 1 else []
    files.make_folder(writer)
    looks = {name: look_at(source / name) for name in names}
    write_note(writer, Written(manifest, boot_id(), looks), UNFROZEN)


def forget_unfrozen(writer: Path) -> None:
    """Remove the note: the folder has a snapshot now, or was given up. Raises OSError."""
    if (writer / UNFROZEN).exists():
        files.remove_file(writer / UNFROZEN)


def freeze_unfrozen(
    writer: Path,
    output_dir: Path,
    committed: int,
    unfinished: Callable[[Path, set[str], Manifest], list[str]],
    best_step: Callable[[Path], int | None],
) -> PassedOver | None:
    """Make a snapshot that counts of what a dead writer had written, or return why that can't be; None too: nothing.

    ``committed``: position of the writer's newest save that is committed. ``unfinished`` returns what a folder with
    these files lacks, and what of it is torn; ``best_step`` the step of the best checkpoint that it names. Raises
    nothing.
    """
    try:
        written = read_note(writer, UNFROZEN)
    except (CorruptError, OSError):
        return None
    manifest = written.manifest
    source = output_dir / f"checkpoint-{manifest.step}"
    snapshot = writer / f"{manifest.seq}-{source.name}"
    if str(manifest.token) != writer.name or manifest.seq <= committed or not source.is_dir():
        return None
    if (snapshot / NOTE).exists() or (snapshot / SEAL).exists():
        return None
    try:
        paths = set(list_files(source))
        reason = why_not(written, {name: look_at(source / name) for name in paths & written.files.keys()})
        if not reason and (lacking := unfinished(source, paths, manifest)):
            reason = f"it lacks {', '.join(lacking)}"
        if not reason:
            manifest = replace(manifest, best_step=best_step(source))
            note_whole(take_snapshot(source, writer, manifest.seq, manifest))
    except (OSError, ValueError, VaultLayerError) as error:
        reason = str(error)
    return PassedOver(manifest.token, manifest.seq, source.name, reason) if reason else None
