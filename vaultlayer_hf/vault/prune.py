"""Prune: retire by an entry first, delete after; and clean up what was uploaded and never committed.

Never deleted: what a live commit refers to, and anything that another token may still be writing. An orphan
of an older token is deleted only after a grace, counted by the store's own clock: its writer is fenced, yet
may be asleep in the middle of an upload.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.vault.entry import Commit
from vaultlayer_hf.vault.keys import DATA, split_folder
from vaultlayer_hf.vault.log import Writer

ORPHAN_GRACE = 24 * 3600.0
"""Seconds that an orphan of an older token is left alone after its last change."""


def retire(store: Store, writer: Writer, commits: Iterable[Commit], reasons: dict[int, str]) -> None:
    """Take checkpoints out of the log's care, then delete them. Raises FencedError, StoreError.

    A stop in between leaves their folders in the state's ``retiring``: ``delete_retired`` goes on there.
    """
    numbers = {commit.number for commit in commits}
    if numbers:
        detail = {"retired": {str(number): reasons.get(number, "") for number in sorted(numbers)}}
        writer.append("retire", lambda state, _: state.retired(numbers), detail, store=store)
    delete_retired(store, writer)


def delete_retired(store: Store, writer: Writer) -> None:
    """Delete the folders that are retired, and note in the log that they are gone."""
    folders = writer.state.retiring
    if not folders:
        return
    live = {commit.folder for commit in writer.state.commits}
    for folder in folders:
        if folder not in live:  # no log of ours says so; one that does isn't believed
            delete_folder(store, folder)
    gone = set(folders)
    writer.append("retire", lambda state, _: state.deleted(gone), {"deleted": list(folders)}, store=store)


def delete_folder(store: Store, folder: str) -> None:
    """Delete every object of a checkpoint folder."""
    if split_folder(folder) is None:
        raise ValueError(f"{folder!r} is no checkpoint folder")
    store.delete([item.key for item in store.list(f"{folder}/")])


def find_orphans(
    objects: Iterable[ObjectInfo], writer_token: int, live: set[str], now: float, grace: float = ORPHAN_GRACE
) -> list[str]:
    """Return the folders that may be deleted: not live, of an older token, unchanged for ``grace`` seconds.

    ``now`` is the store's clock in seconds since the epoch. Pure.
    """
    newest: dict[str, float] = {}
    for item in objects:
        folder = "/".join(item.key.split("/")[:3])
        place = split_folder(folder)
        if place is not None and place[0] < writer_token and folder not in live:
            newest[folder] = max(newest.get(folder, 0.0), item.modified)
    return sorted(folder for folder, modified in newest.items() if now - modified > grace)


def clean_orphans(store: Store, writer: Writer, grace: float = ORPHAN_GRACE) -> list[str]:
    """Delete orphans of older tokens and return their folders. Raises StoreError."""
    key = f"probe/clock-{os.urandom(8).hex()}"
    store.write(key, b"")
    now = store.head(key).modified
    store.delete([key])
    state = writer.state
    live = {commit.folder for commit in state.commits} | set(state.retiring)
    orphans = find_orphans(store.list(DATA), writer.token, live, now, grace)
    for folder in orphans:
        delete_folder(store, folder)
    return orphans
