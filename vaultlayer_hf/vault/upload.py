"""Upload and commit of one sealed snapshot.

Order, never another: every file, then the node's part, then the manifest, then the commit entry. Before
the entry exists nothing of it is visible; a stop at any point before leaves an orphan.

A file that the newest commit already vouches for, with the same path, size and digest, isn't sent again:
the store copies it, so that each folder stays whole and nothing needs reference counts. Only objects of a
commit are trusted, never those of an unfinished upload.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vaultlayer_hf.digest import digest_bytes
from vaultlayer_hf.errors import CorruptError, StoreError
from vaultlayer_hf.stores.base import Pace, Store
from vaultlayer_hf.vault.entry import Commit, State
from vaultlayer_hf.vault.keys import folder_key, manifest_key, part_key
from vaultlayer_hf.vault.log import Writer, now
from vaultlayer_hf.vault.manifest import FileEntry, Manifest, encode_manifest, encode_part, read_manifest
from vaultlayer_hf.vault.snapshot import Snapshot, check_unchanged


@dataclass
class Transfer:
    """What is already in the store of one snapshot's upload; kept across retries, so it goes on file by file.

    Attributes:
        folder: key prefix of the checkpoint.
        done: paths of files that are in.
        sent: bytes sent.
        copied: bytes that the store copied from the commit before.
        committing: whether the commit entry may exist: from its first attempt on nobody may delete the folder.
    """

    folder: str
    done: set[str] = field(default_factory=set)
    sent: int = 0
    copied: int = 0
    committing: bool = False


def start_transfer(writer: Writer, snapshot: Snapshot, used: set[str]) -> Transfer:
    """Choose the folder of a snapshot: its own name, or a numbered one where this writer used that before.

    An object is written once: a second save of one step never touches what the first has put there.
    """
    name, count = snapshot.name, 1
    while name in used:
        count += 1
        name = f"{snapshot.name}.{count}"
    used.add(name)
    return Transfer(folder_key(writer.token, name))


def send(
    store: Store, snapshot: Snapshot, transfer: Transfer, known: Commit | None, pace: Pace | None
) -> None:
    """Bring every file of a snapshot into the store. Raises StoreError, SnapshotChangedError, OSError."""
    vouched = _vouched(store, known)
    for entry in snapshot.manifest.files:
        if entry.path in transfer.done:
            continue
        key = f"{transfer.folder}/{entry.path}"
        source = vouched.get(entry)
        if source is not None and _copy(store, source, key, entry):
            transfer.copied += entry.size
        else:
            store.upload(key, snapshot.files / entry.path, size=entry.size, pace=pace)
            transfer.sent += entry.size
        check_unchanged(snapshot, entry.path)
        transfer.done.add(entry.path)


def commit(
    store: Store, writer: Writer, snapshot: Snapshot, transfer: Transfer, *, resumed_from: int | None
) -> Commit:
    """Make a checkpoint visible whose files are all in the store. Raises FencedError, StoreError."""
    manifest: Manifest = snapshot.manifest
    data = encode_manifest(manifest)
    store.write(part_key(transfer.folder, 0), encode_part(0, manifest.files))
    store.write(manifest_key(transfer.folder), data)

    def describe(number: int) -> Commit:
        return Commit(
            number=number,
            token=writer.token,
            seq=snapshot.seq,
            step=manifest.step,
            folder=transfer.folder,
            time=now(),
            bytes=manifest.bytes,
            files=len(manifest.files),
            manifest=digest_bytes(data),
            manifest_size=len(data),
        )

    def change(state: State, number: int) -> State:
        return state.committed(describe(number), resumed_from=resumed_from, best_step=manifest.best_step)

    transfer.committing = True
    entry = writer.append("commit", change, {"step": manifest.step, "folder": transfer.folder})
    return entry.state.commits[-1]


def _vouched(store: Store, known: Commit | None) -> dict[FileEntry, str]:
    """Return the key of each file that the newest commit vouches for; none where that can't be told."""
    if known is None:
        return {}
    try:
        manifest = read_manifest(store, known)
    except (CorruptError, StoreError):
        return {}
    return {entry: f"{known.folder}/{entry.path}" for entry in manifest.files if entry.size > 0}


def _copy(store: Store, source: str, target: str, entry: FileEntry) -> bool:
    """Copy inside the store; False where the source isn't what the manifest says, so that it must be sent."""
    try:
        return store.copy(source, target).size == entry.size
    except StoreError as error:
        if error.transient:
            raise
        return False
