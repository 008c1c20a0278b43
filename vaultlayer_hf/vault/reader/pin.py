"""Pin: keep a checkpoint whatever the retention policy says, from any process, while a run is writing.

A pin is a log entry without a claim. Why that breaks nothing (the numbers are those of log.py):

- It is created by create-if-absent behind an entry that was read (1), and carries that entry's state with one
  flag changed, so whatever the run has committed or retired by then stays as it is.
- Its token is the newest claim's: it fences nobody, and writes nothing below ``data/`` (2).
- A writer that wanted the same number meets the pin, takes over its state and appends behind it (4). Every later
  entry of the log therefore carries the pin: it can't be lost to a writer that didn't know of it.
- A retirement that races with a pin is decided anew behind it, and leaves the pinned one out (6). Where the
  retirement came first, the pin fails: an acknowledged pin is never of a checkpoint that is going.
- A second pin of the same checkpoint appends nothing.
"""

from __future__ import annotations

from vaultlayer_hf.errors import NoSuchCheckpointError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.log.entry import Commit, Entry
from vaultlayer_hf.vault.reader.append import Addition, append_beside


def pin(store: Store, commit: Commit, pinned: bool, *, alone: bool = False) -> Entry:
    """Pin a checkpoint, or let it go, and return the log's newest entry, which says so.

    ``alone``: no run is writing to this vault, so a store without create-if-absent will do.

    Raises NoSuchCheckpointError where it was retired meanwhile; StoreError where the store is in trouble (a
    repetition is safe) or lacks create-if-absent.
    """
    vault_id: str | None = None

    def make(before: Entry | None, number: int) -> Addition | None:
        nonlocal vault_id
        if vault_id is None:
            vault_id = before.state.vault_id if before else ""
        there = _find(before, commit, vault_id)
        if before is None or there is None:
            raise NoSuchCheckpointError(
                f"{store.uri} no longer holds {commit.name} of log entry {commit.number}: it was retired meanwhile"
            )
        if there.pinned == pinned:
            return None
        detail = {"number": commit.number, "step": commit.step, "pinned": pinned}
        return Addition("pin", before.state.token, detail, before.state.pinned(commit.number, pinned))

    newest = append_beside(store, "pin", make, alone=alone)
    assert newest is not None
    return newest


def _find(entry: Entry | None, commit: Commit, vault_id: str) -> Commit | None:
    """Return the checkpoint as an entry has it; None where it is gone, or the vault is another by now."""
    if entry is None or entry.state.vault_id != vault_id:
        return None
    live = (item for item in entry.state.commits if item.number == commit.number)
    return next((item for item in live if item.manifest == commit.manifest), None)
