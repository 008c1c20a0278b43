"""Snapshots: the local frozen copy of a checkpoint that waits for upload.

<output_dir>/_vaultlayer/<vault_id>/<token>/<seq>-checkpoint-500/files/...   the checkpoint's files
<output_dir>/_vaultlayer/<vault_id>/<token>/<seq>-checkpoint-500/written.json   there once all ranks have written
<output_dir>/_vaultlayer/<vault_id>/<token>/<seq>-checkpoint-500/manifest.json   there once sealed

A snapshot shares the content of the Trainer's files by hard links: 0.1 ms for 2 GB, and the Trainer's own
rotation can't take the content away. A later write to the same file would show through a link, so:

- small files, which are the ones that get rewritten, are copied, but for tensors and what is ours: a copy takes
  0.1 to 0.5 ms of the training's time, a link a tenth of that;
- the Trainer's seam removes the old names before a folder is saved again, which leaves the snapshot alone;
- size and mtime of each linked file are noted, and compared again after it was read: a file that somebody
  else rewrote in place costs that checkpoint, and is never committed as if it were whole.

A snapshot is *sealed* by the manifest, written last, durably, with the digest of every file: a sealed one can be
adopted by any later start. One that isn't sealed yet is *whole* by its note (written.py), which is there before the
save returns to the training: as long as the same boot of the same machine lasts, it can be adopted, too, and is
sealed then. Files are read twice on their way to the store, once for the seal and once to be sent: the seal must not
wait for a store in trouble, and the digest tells what needn't be sent. Once, where the digest was taken as a file was
written, and the file still looks as it did then.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vaultlayer_hf.base import files
from vaultlayer_hf.base.digest import KnownDigest, digest_file
from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.vault.manifest import FileEntry, Manifest, check_path, encode_manifest
from vaultlayer_hf.vault.written import NOTE, Written, boot_id, look_at, write_note

LOCAL = "_vaultlayer"
"""The folder inside ``output_dir`` that holds what is ours. push_to_hub leaves out what begins with ``_``."""
COPY_BELOW = 2**20
"""Bytes: smaller files are copied into a snapshot, larger ones linked."""
_LINKED_ANYWAY = (".safetensors", ".pt", ".pth", ".bin")
"""Nobody edits such a file: it is written anew with its checkpoint, if at all."""
_OURS = "vaultlayer_"
"""What the names of our own files begin with, which appear by a rename."""
SEAL = "manifest.json"
"""Its name in a snapshot's folder."""


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
        stats: (size, mtime in ns) of each file when it was taken; empty for a sealed one that was found on the disk.
        noted: whether the note that it is whole is on the disk.
        known: digests of files that were taken as these were written.
    """

    path: Path
    seq: int
    name: str
    manifest: Manifest
    linked: bool
    stats: dict[str, tuple[int, int]]
    noted: bool = False
    known: Mapping[str, KnownDigest] = field(default_factory=dict)

    @property
    def files(self) -> Path:
        """The folder that holds the checkpoint's files."""
        return self.path / "files"

    @property
    def sealed(self) -> bool:
        """Whether every file's digest is known and on the disk."""
        return bool(self.manifest.files)

    @property
    def has_seal(self) -> bool:
        """Whether it is sealed on the disk, perhaps since this object was made."""
        return self.sealed or (self.path / SEAL).is_file()

    def remove(self) -> None:
        """Remove it from the disk; note and seal go first, so a half-removed one is never adopted."""
        files.remove_file(self.path / NOTE)
        files.remove_file(self.path / SEAL)
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


def take_snapshot(
    source: Path,
    target: Path,
    seq: int,
    manifest: Manifest,
    known: Mapping[str, KnownDigest] | None = None,
) -> Snapshot:
    """Freeze a checkpoint folder; the only step of a save that training waits for.

    ``known``: digests that were taken of its files as these were written. Raises OSError (no space, for instance) and
    VaultLayerError; nothing is left behind then.
    """
    path = target / f"{seq}-{source.name}"
    linked, stats = True, {}
    try:
        files.remove_tree(path)
        names = list_files(source)
        for folder in {os.path.dirname(name) for name in names}:
            (path / "files" / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            original, copy = source / name, path / "files" / name
            look = os.lstat(original)
            links = stat.S_ISREG(look.st_mode) and (look.st_size >= COPY_BELOW or _is_written_once(name))
            if not (links and files.link(original, copy)):
                linked = linked and not (links and look.st_size >= COPY_BELOW)
                shutil.copyfile(original, copy)
            look = os.lstat(copy)
            stats[name] = (look.st_size, look.st_mtime_ns)
    except BaseException:
        files.remove_tree(path)
        raise
    return Snapshot(path, seq, source.name, manifest, linked, stats, known=known or {})


def _is_written_once(name: str) -> bool:
    return name.endswith(_LINKED_ANYWAY) or os.path.basename(name).startswith(_OURS)


def note_whole(snapshot: Snapshot) -> Snapshot:
    """Note that all ranks have written what this snapshot belongs to: from now on it counts on this boot.

    Raises SnapshotChangedError, OSError.
    """
    looks = {}
    for name in snapshot.stats:
        looks[name] = look_at(snapshot.files / name)
        _check_look(snapshot, name, looks[name].size, looks[name].mtime_ns)
    write_note(snapshot.path, Written(snapshot.manifest, boot_id(), looks))
    return replace(snapshot, noted=True)


def seal_snapshot(
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
        known = snapshot.known.get(name)
        if known is not None and (known.size, known.mtime_ns) == snapshot.stats[name]:
            digest, size = known.digest, known.size
        else:
            digest, size = digest_of(path, on_bytes)
        check_unchanged(snapshot, name)
        entries.append(FileEntry(name, size, digest))
    for root, _, _ in os.walk(snapshot.files):
        files.fsync_folder(Path(root))
    manifest = replace(snapshot.manifest, files=tuple(entries))
    files.write_file(snapshot.path / SEAL, encode_manifest(manifest))
    for folder in (snapshot.path, *list(snapshot.path.parents)[:4]):
        files.fsync_folder(folder)
    return replace(snapshot, manifest=manifest)


def check_unchanged(snapshot: Snapshot, name: str) -> None:
    """Raise SnapshotChangedError where a file isn't what it was when the snapshot was taken."""
    look = os.stat(snapshot.files / name)
    _check_look(snapshot, name, look.st_size, look.st_mtime_ns)


def _check_look(snapshot: Snapshot, name: str, size: int, mtime_ns: int) -> None:
    expected = snapshot.stats.get(name)
    if expected is not None and (size, mtime_ns) != expected:
        raise SnapshotChangedError(f"{name} of {snapshot.name} was rewritten while it waited for upload")


def verify_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with fresh file times if every digest holds; one that isn't sealed yet is sealed.

    Raises CorruptError, SnapshotChangedError, OSError.
    """
    try:
        paths = set(list_files(snapshot.files))
    except VaultLayerError as error:
        raise CorruptError(f"{snapshot.path}: {error}") from error
    # A snapshot is made of plain files alone. What a link leads to could change behind the digest, and a pipe is never
    # read to its end.
    for name in paths:
        if not stat.S_ISREG(os.lstat(snapshot.files / name).st_mode):
            raise CorruptError(f"{snapshot.files / name}: it is no plain file")
    if not snapshot.sealed:
        return seal_snapshot(snapshot)
    if paths != snapshot.manifest.paths:
        raise CorruptError(f"{snapshot.path}: its files are not those of its manifest")
    stats = {}
    for entry in snapshot.manifest.files:
        path = snapshot.files / entry.path
        if digest_file(path) != (entry.digest, entry.size):
            raise CorruptError(
                f"{path}: its content isn't what was saved (its digest isn't that of the save)"
            )
        found = path.stat()
        stats[entry.path] = (found.st_size, found.st_mtime_ns)
    return replace(snapshot, stats=stats)


def hand_over_snapshot(
    snapshot: Snapshot, target: Path, seq: int, token: int, resumed_from: int | None
) -> Snapshot:
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
    files.write_file(path / SEAL, encode_manifest(manifest))
    snapshot.remove()
    return replace(snapshot, path=path, seq=seq, manifest=manifest, stats=stats)
