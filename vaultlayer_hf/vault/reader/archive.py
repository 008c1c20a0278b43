"""Archive: start over in the same vault. What it holds is kept under a name, and the next start begins at step 0.

Both ways are a claim, made as any other (log.py, 1, 2 and 4), whose state says more: see log/archive.py. Nothing else
is written, however much the vault holds. On a store without create-if-absent an entry could overwrite what a run is
writing: there it is refused, unless whoever calls knows that no run is writing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from vaultlayer_hf.errors import AlreadyExistsError, CorruptError, ObjectNotFoundError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.archive import archive, find_archive, take_back
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import Entry, VaultState, encode_entry
from vaultlayer_hf.vault.log.log import Log, now, read_whole, who
from vaultlayer_hf.vault.signature import check_may_write

Change = Callable[[VaultState, int], tuple[VaultState, dict[str, Any]]]
"""State before a claim and its token; returns the state after it, and what the claim notes."""


def make_archive(store: Store, name: str | None = None, *, alone: bool = False) -> Entry:
    """Archive all that the vault holds and return the claim that did. A run that writes to it is fenced.

    Raises NoSuchCheckpointError where it holds nothing; SettingsError where the name can't be used; CorruptError where
    the end of the log is damaged; StoreError.
    """
    return _claim(store, lambda state, token: archive(state, name, token, store.uri), alone)


def undo_archive(store: Store, name: str | None = None, *, alone: bool = False) -> Entry:
    """Take an archive back, the newest without a name, and return the claim that did.

    Raises NoSuchCheckpointError where there is none; SettingsError where a run has committed since; CorruptError where
    the end of the log is damaged; StoreError.
    """
    made = find_archive(read_entries(store, lambda reason: None), name, store.uri)
    return _claim(store, lambda state, token: take_back(state, made, token, store.uri), alone)


def _claim(store: Store, change: Change, alone: bool) -> Entry:
    if not alone and not probe_create(store):
        raise StoreError(
            "archive",
            "",
            "this store can't create an object only if it is absent, so this could overwrite what a run is writing",
            "archive while no run is writing, with alone=True or --alone",
        )
    log, write_id = Log(store), uuid.uuid4().hex
    number, before = log.last()
    if before is None:
        raise ObjectNotFoundError("archive", "", f"there is no vault at {store.uri}")
    if before.number != number:  # what the lost entries held would neither be archived nor be gone on from
        raise CorruptError(
            f"{store.uri}: its log is damaged behind entry {before.number}; name a new vault instead"
        )
    check_may_write(before.signed)
    while True:
        number += 1
        state, detail = change(before.state, number)
        entry = Entry(number, "claim", write_id, number, now(), {**detail, **who()}, state)
        try:
            store.create(entry_key(number), encode_entry(entry))
        except AlreadyExistsError:
            found = read_whole(log, number)
            if found is not None and found.write_id == write_id:
                return found
            before = found or before
            continue
        return entry
