"""Which snapshots on a disk a start may adopt: found, checked from outside, not read yet.

A sealed one counts on any start, one that is only whole by its note on the boot in which it was written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.manifest import MANIFEST_LIMIT, Manifest, decode_manifest
from vaultlayer_hf.vault.snapshot import SEAL, Snapshot, list_files, local_folder
from vaultlayer_hf.vault.written import NOTE, look_at, read_note, why_not

_NAME = re.compile(r"([0-9]{1,19})-(.+)")
_ADOPTING = "adopting"
"""In a writer's folder, while it adopts: the token of the writer whose snapshots it has found."""


@dataclass(frozen=True)
class PassedOver:
    """A snapshot on the disk that has a note, and doesn't count.

    Attributes:
        token: of its writer.
        seq: position among its writer's saves.
        name: the checkpoint folder's name.
        reason: why it doesn't count.
    """

    token: int
    seq: int
    name: str
    reason: str


def find_complete(folder: Path) -> tuple[list[Snapshot], list[PassedOver]]:
    """Return one writer's snapshots that are sealed, or whole on this boot, newest first, and those that don't count.

    Such as have neither seal nor note are no snapshots yet, and not told of.
    """
    found: list[Snapshot] = []
    passed: list[PassedOver] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is None or path.is_symlink() or (path / "files").is_symlink():  # no snapshot of ours is one
            continue
        seq, name = int(match[1]), match[2]
        try:
            one = _sealed_at(path, seq, name) or _whole_at(path, seq, name)
        except (CorruptError, OSError):
            continue
        if isinstance(one, Snapshot):
            found.append(one)
        elif one is not None:
            passed.append(one)
    return sorted(found, key=lambda snapshot: snapshot.seq, reverse=True), passed


def _sealed_at(path: Path, seq: int, name: str) -> Snapshot | None:
    """Return the sealed snapshot that lies there, or None. Raises CorruptError, OSError."""
    if not (path / SEAL).is_file():
        return None
    manifest = decode_manifest(files.read_small(path / SEAL, MANIFEST_LIMIT), str(path / SEAL))
    return Snapshot(path, seq, name, manifest, linked=True, stats={}) if _belongs(manifest, path) else None


def _belongs(manifest: Manifest, path: Path) -> bool:
    """Tell whether a snapshot at ``path`` can be what its manifest says: its name becomes that of a folder."""
    return (f"{manifest.seq}-checkpoint-{manifest.step}", str(manifest.token)) == (
        path.name,
        path.parent.name,
    )


def _whole_at(path: Path, seq: int, name: str) -> Snapshot | PassedOver | None:
    """Return the snapshot whose note lies there, or why it doesn't count. Raises CorruptError, OSError."""
    if not (path / NOTE).is_file():
        return None
    written = read_note(path)
    manifest = written.manifest
    if not _belongs(manifest, path) or not written.files:
        return None
    try:
        looks = {file: look_at(path / "files" / file) for file in list_files(path / "files")}
        reason = why_not(written, looks)
    except VaultLayerError as error:
        return PassedOver(manifest.token, seq, name, str(error))
    if reason:
        return PassedOver(manifest.token, seq, name, reason)
    stats = {file: (look.size, look.mtime_ns) for file, look in looks.items()}
    return Snapshot(path, seq, name, manifest, linked=True, stats=stats, noted=True)


def find_adoptable(
    output_dirs: Sequence[Path], state: VaultState, writers: Collection[int] = ()
) -> tuple[list[Snapshot], list[PassedOver]]:
    """Return the snapshots that a start may adopt on such a vault, best first, and newer ones that don't count.

    They are those of the newest claim's writer that it hasn't committed: nobody else has written since. Where that
    writer died while it was itself adopting on this disk, and has committed nothing, it has come no further than the
    one before it, whose snapshots then count, too. So do those of ``writers`` (tokens), where the newest claim's
    died ahead of that. ``output_dirs``: where this run has its folder, and where it had it before.
    """
    found: list[Snapshot] = []
    passed: list[PassedOver] = []
    token = state.token
    while True:
        folders = [local_folder(output_dir, state.vault_id, token) for output_dir in output_dirs]
        committed = max((commit.seq for commit in state.commits if commit.token == token), default=0)
        looked = [find_complete(folder) for folder in folders]
        counting = [snapshot for here, _ in looked for snapshot in here if snapshot.seq > committed]
        found += sorted(counting, key=lambda snapshot: snapshot.seq, reverse=True)
        best = (found[0].manifest.token, found[0].seq) if found else (0, 0)
        others = [other for _, passed_over in looked for other in passed_over if other.seq > committed]
        passed += [other for other in others if (other.token, other.seq) > best]
        before = next(filter(None, map(_adopted_from, folders)), None) or max(
            (other for other in writers if other < token), default=None
        )
        if committed or before is None or before >= token:
            return found, passed
        token = before


def begin_adopting(folder: Path, token: int) -> None:
    """Note in a new writer's folder that it goes on from snapshots of the writer ``token``. Raises OSError."""
    files.make_folder(folder)
    files.write_file(folder / _ADOPTING, str(token).encode())


def end_adopting(folder: Path) -> None:
    """Remove ``begin_adopting``'s note: what was found is this writer's own now, or of no use. Raises OSError."""
    files.remove_file(folder / _ADOPTING)


def _adopted_from(folder: Path) -> int | None:
    try:
        text = files.read_small(folder / _ADOPTING, 20)
    except OSError:
        return None
    return int(text) if text.isdigit() else None
