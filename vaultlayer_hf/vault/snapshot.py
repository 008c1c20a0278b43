"""Snapshots: the local frozen copy of a checkpoint that waits for upload.

<output_dir>/_vaultlayer/<vault_id>/<token>/<seq>-checkpoint-500/files/...   the checkpoint's files
<output_dir>/_vaultlayer/<vault_id>/<token>/<seq>-checkpoint-500/manifest.json   there once sealed

A snapshot shares the content of the Trainer's files by hard links: 0.1 ms for 2 GB, and the Trainer's own
rotation can't take the content away. A later write to the same file would show through a link, so:

- small files, which are the ones that get rewritten, are copied;
- the Trainer's seam removes the old names before a folder is saved again, which leaves the snapshot alone;
- size and mtime of each linked file are noted, and compared again after it was read: a file that somebody
  else rewrote in place costs that checkpoint, and is never committed as if it were whole.

A snapshot is *sealed* by the manifest, written last, durably, with the digest of every file: only a sealed
one can be adopted by a later start. Files are read twice on their way to the store, once for the seal and
once to be sent: the seal must not wait for a store in trouble, and the digest tells what needn't be sent.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import digest_file
from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.vault.log.entry import VaultState
from vaultlayer_hf.vault.manifest import FileEntry, Manifest, check_path, decode_manifest, encode_manifest

LOCAL = "_vaultlayer"
"""The folder inside ``output_dir`` that holds what is ours. push_to_hub leaves out what begins with ``_``."""
COPY_BELOW = 2**20
"""Bytes: smaller files are copied into a snapshot, larger ones linked."""
_NAME = re.compile(r"(\d+)-(.+)")
_MANIFEST = "manifest.json"
_ADOPTING = "adopting"
"""In a writer's folder, while it adopts: the token of the writer whose snapshots it has found."""


class SnapshotChangedError(VaultLayerError):
    """A file of a snapshot was rewritten from outside while it waited."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on the local disk.

    Attributes:
        path: its folder.
        seq: position among its writer's saves.
        name: the checkpoint folder's name, such as ``checkpoint-500``.
        manifest: what is known of it; without files until it is sealed.
        linked: whether large files share their content with the Trainer's folder.
        stats: (size, mtime in ns) of each file when it was taken; empty for one that was found on the disk.
    """

    path: Path
    seq: int
    name: str
    manifest: Manifest
    linked: bool
    stats: dict[str, tuple[int, int]]

    @property
    def files(self) -> Path:
        """The folder that holds the checkpoint's files."""
        return self.path / "files"

    @property
    def sealed(self) -> bool:
        """Whether every file's digest is known and on the disk."""
        return bool(self.manifest.files)

    def remove(self) -> None:
        """Remove it from the disk; the seal goes first, so a half-removed one is never adopted."""
        files.remove_file(self.path / _MANIFEST)
        files.remove_tree(self.path)


def local_folder(output_dir: Path, vault_id: str, token: int) -> Path:
    """Return the folder of one writer's snapshots."""
    return output_dir / LOCAL / vault_id / str(token)


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files below a checkpoint folder, ordered, ``/``-separated.

    Raises VaultLayerError where it holds a link to a folder or a name that a manifest can't carry.
    """
    found = []
    for root, folders, names in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(root, name)):
                raise VaultLayerError(
                    f"{os.path.join(root, name)} is a link to a folder; checkpoints can't hold one"
                )
        for name in names:
            path = os.path.relpath(os.path.join(root, name), folder).replace(os.sep, "/")
            found.append(check_path(path, str(folder)))
    return sorted(found)


def take(source: Path, target: Path, seq: int, manifest: Manifest) -> Snapshot:
    """Freeze a checkpoint folder; the only step of a save that training waits for.

    Raises OSError (no space, for instance) and VaultLayerError; nothing is left behind then.
    """
    path = target / f"{seq}-{source.name}"
    linked, stats = True, {}
    try:
        files.remove_tree(path)
        for name in list_files(source):
            original, copy = source / name, path / "files" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            stat = original.stat()
            if original.is_symlink() or stat.st_size < COPY_BELOW:
                shutil.copyfile(original, copy)
            elif not files.link(original, copy):
                linked = False
                shutil.copyfile(original, copy)
            stat = copy.stat()
            stats[name] = (stat.st_size, stat.st_mtime_ns)
    except BaseException:
        files.remove_tree(path)
        raise
    return Snapshot(path, seq, source.name, manifest, linked, stats)


def seal(
    snapshot: Snapshot,
    on_bytes: Callable[[int], None] | None = None,
    digest_of: Callable[[Path, Callable[[int], None] | None], tuple[str, int]] = digest_file,
) -> Snapshot:
    """Flush every file, compute its digest, and write the manifest last; return the sealed snapshot.

    ``digest_of`` does what ``digest_file`` does. Raises SnapshotChangedError, OSError, and what ``on_bytes`` raises to
    cancel.
    """
    if snapshot.sealed:
        return snapshot
    entries = []
    for name in sorted(snapshot.stats):
        path = snapshot.files / name
        files.fsync_file(path)
        digest, size = digest_of(path, on_bytes)
        check_unchanged(snapshot, name)
        entries.append(FileEntry(name, size, digest))
    for root, _, _ in os.walk(snapshot.files):
        files.fsync_folder(Path(root))
    manifest = replace(snapshot.manifest, files=tuple(entries))
    files.write_file(snapshot.path / _MANIFEST, encode_manifest(manifest))
    for folder in (snapshot.path, *list(snapshot.path.parents)[:4]):
        files.fsync_folder(folder)
    return replace(snapshot, manifest=manifest)


def check_unchanged(snapshot: Snapshot, name: str) -> None:
    """Raise SnapshotChangedError where a file isn't what it was when the snapshot was taken."""
    stat = (snapshot.files / name).stat()
    expected = snapshot.stats.get(name)
    if expected is not None and (stat.st_size, stat.st_mtime_ns) != expected:
        raise SnapshotChangedError(f"{name} of {snapshot.name} was rewritten while it waited for upload")


def find_sealed(folder: Path) -> list[Snapshot]:
    """Return the sealed snapshots of one writer, newest first; others are passed over."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is None or not (path / _MANIFEST).is_file():
            continue
        try:
            manifest = decode_manifest((path / _MANIFEST).read_bytes(), str(path / _MANIFEST))
        except (CorruptError, OSError):
            continue
        if (manifest.seq, str(manifest.token)) == (int(match[1]), folder.name):
            found.append(Snapshot(path, manifest.seq, match[2], manifest, linked=True, stats={}))
    return sorted(found, key=lambda snapshot: snapshot.seq, reverse=True)


def find_adoptable(output_dir: Path, state: VaultState) -> list[Snapshot]:
    """Return the sealed snapshots that a run behind ``state`` may adopt, the best first.

    They are those of the newest claim's writer that it hasn't committed: nobody else has written since. Where that
    writer died while it was itself adopting on this disk, and has committed nothing, it has come no further than the
    one before it, whose snapshots then count, too.
    """
    found: list[Snapshot] = []
    token = state.token
    while True:
        folder = local_folder(output_dir, state.vault_id, token)
        committed = max((commit.seq for commit in state.commits if commit.token == token), default=0)
        found += [snapshot for snapshot in find_sealed(folder) if snapshot.seq > committed]
        before = _adopted_from(folder)
        if committed or before is None or before >= token:
            return found
        token = before


def begin_adopting(folder: Path, token: int) -> None:
    """Note in a new writer's folder that it goes on from snapshots of the writer ``token``. Raises OSError."""
    files.make_folder(folder)
    files.write_file(folder / _ADOPTING, str(token).encode())


def end_adopting(folder: Path) -> None:
    """Nothing is being adopted any more: it is this writer's own, or was of no use."""
    files.remove_file(folder / _ADOPTING)


def _adopted_from(folder: Path) -> int | None:
    try:
        text = (folder / _ADOPTING).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isascii() and text.isdigit() else None


def verify(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with fresh file times if every digest holds. Raises CorruptError, OSError."""
    try:
        paths = set(list_files(snapshot.files))
    except VaultLayerError as error:
        raise CorruptError(f"{snapshot.path}: {error}") from error
    if paths != snapshot.manifest.paths:
        raise CorruptError(f"{snapshot.path}: its files are not those of its manifest")
    stats = {}
    for entry in snapshot.manifest.files:
        path = snapshot.files / entry.path
        if digest_file(path) != (entry.digest, entry.size):
            raise CorruptError(f"{path}: its content doesn't have the digest of its manifest")
        stat = path.stat()
        stats[entry.path] = (stat.st_size, stat.st_mtime_ns)
    return replace(snapshot, stats=stats)


def move(snapshot: Snapshot, target: Path, seq: int, token: int, resumed_from: int | None) -> Snapshot:
    """Hand a sealed snapshot over to a new writer: its files by links, then the new manifest, then the old one goes.

    ``resumed_from`` is the number of the commit that the new writer's run goes on from. At every moment one of the two
    places is sealed and whole, or both are, so a stop in between loses nothing. Where files can't be linked they are
    copied. Raises OSError.
    """
    manifest = replace(snapshot.manifest, token=token, seq=seq, resumed_from=resumed_from)
    path = target / f"{seq}-{snapshot.name}"
    files.make_folder(target)
    files.remove_tree(path)
    stats = {}
    for name in sorted(manifest.paths):
        there = path / "files" / name
        files.make_folder(there.parent)
        if not files.link(snapshot.files / name, there):
            shutil.copyfile(snapshot.files / name, there)
            files.fsync_file(there)
        stat = there.stat()
        stats[name] = (stat.st_size, stat.st_mtime_ns)
    for root, _, _ in os.walk(path):
        files.fsync_folder(Path(root))
    files.write_file(path / _MANIFEST, encode_manifest(manifest))
    snapshot.remove()
    return replace(snapshot, path=path, seq=seq, manifest=manifest, stats=stats)
