"""Copy a vault to another store: every live checkpoint, verified, and its log; under a vault id of its own.

The order is that of a commit: the checkpoints' files first, each with its digest checked on the way; then the newest
entry of the log, which makes the copy a vault from one moment to the next; then the older entries, which only tell its
history.

A copy that was stopped goes on when it is called again: a file that is there is read back and kept if its digest holds.
The entries keep their numbers, so that checkpoints keep their folders; what they say of the vault is its new id, and
the newest one notes where the copy comes from. What was retired isn't copied.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import AlreadyExistsError, ObjectNotFoundError, SettingsError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import HINT, LOG, META, entry_key, entry_number
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import Commit, Entry, encode_entry
from vaultlayer_hf.vault.log.log import Log, now, who
from vaultlayer_hf.vault.manifest import FileEntry, read_manifest
from vaultlayer_hf.vault.reader.check import check
from vaultlayer_hf.vault.restore.download import download

COPIED = "copied"
"""Name in an entry's detail: uri, vault_id and newest log entry (number) of the vault that this one is a copy of."""
_META_LIMIT = 64 * 2**20
"""Bytes of our own files inside a checkpoint, at most."""


@dataclass(frozen=True)
class Copied:
    """What a copy has done.

    Attributes:
        vault_id: of the new vault.
        commits: the checkpoints that it holds.
        copied: bytes of files that were copied.
        there: bytes of files that an earlier call had copied.
        entries: entries of the log that were written.
    """

    vault_id: str
    commits: tuple[Commit, ...]
    copied: int
    there: int
    entries: int


def copy_vault(source: Store, target: Store, progress: Callable[[int], None] = lambda count: None) -> Copied:
    """Copy the vault in ``source`` to ``target``; call it again to go on with a copy that was stopped.

    ``progress`` is called with byte counts that add up to the size of the live checkpoints. A run that writes to the
    source meanwhile isn't disturbed; what it commits behind the entry that was the newest at first isn't copied.

    Raises SettingsError where ``target`` holds another vault; CorruptError where the source's content isn't what it
    vouches for; ObjectNotFoundError where there is no vault in ``source``; StoreError, OSError.
    """
    history = read_entries(source, lambda reason: None)
    if not history:
        raise ObjectNotFoundError("copy", "", f"there is no vault at {source.uri}")
    newest = history[-1]
    there = _made_before(target, newest)
    if there is None:
        moved, kept = 0, 0
        for commit in newest.state.commits:
            came, was = _copy_checkpoint(source, target, commit, progress)
            moved, kept = moved + came, kept + was
        there = _publish(target, newest, source.uri)
    else:
        moved, kept = 0, sum(commit.bytes for commit in there.state.commits)
        progress(kept)
    entries = _fill_in(target, history, there)
    return Copied(there.state.vault_id, there.state.commits, moved, kept, entries)


def _made_before(target: Store, newest: Entry) -> Entry | None:
    """Return the newest entry of a copy that only lacks history; None where none is there. Raises SettingsError."""
    entry = Log(target).last()[1]
    if entry is None:
        return None
    for other in reversed(read_entries(target, lambda reason: None)):
        said = other.detail.get(COPIED)
        if isinstance(said, dict) and said.get("vault_id") == newest.state.vault_id:
            if entry.number == other.number == said.get("number") == newest.number:
                return entry
            raise SettingsError(
                f"{target.uri} is a copy of this vault as it was at log entry {said.get('number')}, and one of them has"
                " gone on since: copy to a new place"
            )
    raise SettingsError(f"{target.uri} holds another vault already: copy to a new place")


def _copy_checkpoint(
    source: Store, target: Store, commit: Commit, progress: Callable[[int], None]
) -> tuple[int, int]:
    """Copy the files of one checkpoint; return the bytes that were copied, and those that were there."""
    manifest = read_manifest(source, commit)
    copied = there = 0
    for entry in manifest.files:
        if _is_there(target, commit.folder, entry):
            there += entry.size
            progress(entry.size)
            continue
        with tempfile.TemporaryDirectory(prefix="vl-copy-") as scratch:
            download(source, commit.folder, [entry], Path(scratch), on_bytes=progress)
            target.upload(f"{commit.folder}/{entry.path}", Path(scratch) / entry.path, size=entry.size)
        copied += entry.size
    for item in list(source.list(f"{commit.folder}/{META}/")):
        target.write(item.key, source.read(item.key, limit=_META_LIMIT))
    return copied, there


def _is_there(target: Store, folder: str, entry: FileEntry) -> bool:
    try:
        if target.head(f"{folder}/{entry.path}").size != entry.size:
            return False
    except ObjectNotFoundError:
        return False
    return not check(target, folder, [entry])


def _publish(target: Store, newest: Entry, uri: str) -> Entry:
    """Make the newest entry, by which the copy becomes a vault, and return it. Raises SettingsError."""
    vault_id = uuid.uuid4().hex
    origin = {"uri": uri, "vault_id": newest.state.vault_id, "number": newest.number, "time": now(), **who()}
    state = replace(newest.state, vault_id=vault_id, retiring=())
    entry = replace(newest, detail={**newest.detail, COPIED: origin}, state=state)
    try:
        target.create(entry_key(entry.number), encode_entry(entry))
    except AlreadyExistsError:  # another copy was quicker, or the answer to an earlier attempt was lost
        found = _made_before(target, newest)
        if found is None:
            raise
        return found
    return entry


def _fill_in(target: Store, history: list[Entry], newest: Entry) -> int:
    """Write the older entries that the copy lacks; return how many entries were written by now."""
    have = {entry_number(item.key) for item in target.list(LOG)}
    vault_id = newest.state.vault_id
    for old in history[:-1]:
        if old.number in have:
            continue
        write_id = vault_id if old.number == 1 else old.write_id
        entry = replace(old, write_id=write_id, state=replace(old.state, vault_id=vault_id))
        try:
            target.create(entry_key(old.number), encode_entry(entry))
        except AlreadyExistsError:
            continue  # another copy was quicker
    try:
        target.write(HINT, json.dumps({"number": newest.number}).encode())
    except StoreError:
        pass  # it only saves listing
    return len(history)


def copied_from(detail: dict[str, Any]) -> str | None:
    """Return the vault that an entry's vault is a copy of; None for any other entry."""
    said = detail.get(COPIED)
    return said["uri"] if isinstance(said, dict) and isinstance(said.get("uri"), str) else None
