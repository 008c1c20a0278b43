"""Archive: start over in the same vault. What it holds is kept under a name, and the next start begins at step 0.

Both ways are a claim, made as any other (log.py, 1, 2 and 4), whose state says more: see log/archive.py. Nothing else
is written, however much the vault holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.archive import archive, find_archive, take_back
from vaultlayer_hf.vault.log.entries import read_entries
from vaultlayer_hf.vault.log.entry import Entry, VaultState
from vaultlayer_hf.vault.reader.append import Addition, append_beside

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
    def make(before: Entry | None, number: int) -> Addition:
        if before is None:
            raise ObjectNotFoundError("archive", "", f"there is no vault at {store.uri}")
        # What the lost entries held would neither be archived nor be gone on from.
        if before.number != number - 1:
            raise CorruptError(
                f"{store.uri}: its log is damaged after entry {before.number}; name a new vault instead"
            )
        state, detail = change(before.state, number)
        return Addition("claim", None, detail, state)

    made = append_beside(store, "archive", make, alone=alone)
    assert made is not None
    return made
