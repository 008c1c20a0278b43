"""Upload and commit of one sealed snapshot.

Order, never another: the mark that the folder is ours, every file, the node's part, the manifest, the commit entry.
Before the entry exists nothing of it is visible; a stop at any point before leaves an orphan. It carries the mark,
without which no later run would take it for one of ours and delete it: see retention/prune.py.

A file that the newest commit already vouches for, with the same path, size and digest, isn't sent again:
the store copies it, so that each folder stays whole and nothing needs reference counts. Only objects of a
commit are trusted, never those of an unfinished upload, and only of a commit that this process has made or
read back whole: what went bad in the vault meanwhile would be copied from checkpoint to checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.errors import CorruptError, StoreError
from vaultlayer_hf.stores.base import Pace, Store
from vaultlayer_hf.vault.keys import manifest_key, part_key, upload_key
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.finite import DETAIL
from vaultlayer_hf.vault.log.log import Writer, now
from vaultlayer_hf.vault.manifest import (
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    encode_mark,
    encode_part,
    read_manifest,
)
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


def folder_name(name: str, seq: int, used: set[str]) -> str:
    """Choose the folder's name for a save: the checkpoint's own, or a numbered one where that was used before.

    An object is written once: a second save of one step never touches what the first has put there.
    """
    chosen = f"{name}.{seq}" if name in used else name
    used.add(chosen)
    return chosen


def send(
    store: Store,
    snapshot: Snapshot,
    transfer: Transfer,
    *,
    known: Commit | None = None,
    pace: Pace | None = None,
    only: frozenset[str] | None = None,
) -> None:
    """Bring the files of a snapshot into the store, or those of them that are in ``only``.

    ``known`` is the newest commit, whose files needn't be sent again. Raises StoreError,
    SnapshotChangedError, OSError.
    """
    store.write(upload_key(transfer.folder), encode_mark(transfer.folder))  # each node the same
    vouched = _vouched(store, known)
    for entry in snapshot.manifest.files:
        if entry.path in transfer.done or (only is not None and entry.path not in only):
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


def write_part(store: Store, snapshot: Snapshot, transfer: Transfer, node: int) -> tuple[FileEntry, ...]:
    """Say that a node's files are in, and return the list of them. Raises StoreError."""
    entries = tuple(entry for entry in snapshot.manifest.files if entry.path in transfer.done)
    key = part_key(transfer.folder, node)
    store.write(key, encode_part(node, entries, key))
    return entries


def commit(
    store: Store,
    writer: Writer,
    manifest: Manifest,
    transfer: Transfer,
    *,
    resumed_from: int | None,
    measured: Mapping[str, float] | None = None,
    nonfinite: str = "",
) -> Commit:
    """Make a checkpoint visible whose files are all in the store.

    ``measured`` are figures for the entry's detail, from which later attempts learn what saves cost; ``nonfinite``
    goes there, too: what of the run is nan.
    Raises FencedError, StoreError, CorruptError where the nodes' parts don't make one checkpoint.
    """
    data = encode_manifest(replace(manifest, encryption=store.encryption))
    decode_manifest(data, manifest_key(transfer.folder))  # never commit what couldn't be resumed from
    store.write(manifest_key(transfer.folder), data)

    def describe(number: int) -> Commit:
        return Commit(
            number=number,
            token=writer.token,
            seq=manifest.seq,
            step=manifest.step,
            folder=transfer.folder,
            time=now(),
            bytes=manifest.bytes,
            files=len(manifest.files),
            manifest=digest_bytes(data),
            manifest_size=len(data),
        )

    def change(state: VaultState, number: int) -> VaultState:
        return state.committed(describe(number), resumed_from=resumed_from, best_step=manifest.best_step)

    transfer.committing = True
    detail = {"step": manifest.step, "folder": transfer.folder, **(measured or {})}
    if nonfinite:
        detail[DETAIL] = nonfinite
    entry = writer.append("commit", change, detail, store=store)
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
