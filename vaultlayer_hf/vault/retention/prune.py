"""Prune: retire by an entry first, delete after; and clean up what was uploaded and never committed.

Never deleted: what a live commit refers to, and anything that another token may still be writing. An orphan
of an older token is deleted only after a grace, counted by the store's own clock: its writer is fenced, yet
may be asleep in the middle of an upload.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.vault.keys import DATA, split_folder
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.log import Writer

ORPHAN_GRACE = 24 * 3600.0
"""Seconds that an orphan of an older token is left alone after its last change."""


def retire(store: Store, writer: Writer, commits: Iterable[Commit], reasons: dict[int, str]) -> set[int]:
    """Take checkpoints out of the log's care, then delete them; return the numbers of those that are.

    One that somebody pins in that very moment stays: what the entry retires is decided again behind each
    entry that is found in its place. A stop in between leaves folders in the state's ``retiring``:
    ``delete_retired`` goes on there. Raises FencedError, StoreError.
    """
    numbers = {commit.number for commit in commits}

    def going(state: VaultState) -> list[int]:
        return [item.number for item in state.commits if item.number in numbers and not item.pinned]

    gone: set[int] = set()
    if going(writer.state):
        entry = writer.append(
            "retire",
            lambda state, _: state.retired(numbers),
            lambda state: {"retired": {str(number): reasons.get(number, "") for number in going(state)}},
            store=store,
        )
        gone = {int(number) for number in entry.detail["retired"]}
    delete_retired(store, writer)
    return gone


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
    # An earlier note may have landed unseen: what it said isn't said again.
    writer.append(
        "retire",
        lambda state, _: state.deleted(gone),
        lambda state: {"deleted": [folder for folder in folders if folder in state.retiring]},
        store=store,
    )


def delete_folder(store: Store, folder: str) -> None:
    """Delete every object of a checkpoint folder."""
    if split_folder(folder) is None:
        raise ValueError(f"{folder!r} is no checkpoint folder")
    store.delete([item.key for item in store.list(f"{folder}/")])


@dataclass(frozen=True, slots=True)
class Leftover:
    """A checkpoint folder in the store that no live commit refers to.

    Attributes:
        folder: its key prefix.
        token: of the writer that made it.
        objects, bytes: what it holds.
        modified: when it was last changed, in seconds since the epoch by the store's clock.
    """

    folder: str
    token: int
    objects: int
    bytes: int
    modified: float


def find_leftovers(objects: Iterable[ObjectInfo], live: set[str]) -> list[Leftover]:
    """Return the folders below ``data/`` that aren't live, ordered by name. Pure."""
    found: dict[str, Leftover] = {}
    for item in objects:
        folder = "/".join(item.key.split("/")[:3])
        place = split_folder(folder)
        if place is not None and folder not in live:
            old = found.get(folder, Leftover(folder, place[0], 0, 0, 0.0))
            modified = max(old.modified, item.modified)
            found[folder] = Leftover(folder, old.token, old.objects + 1, old.bytes + item.size, modified)
    return [found[folder] for folder in sorted(found)]


def find_orphans(
    objects: Iterable[ObjectInfo], writer_token: int, live: set[str], now: float, grace: float = ORPHAN_GRACE
) -> list[str]:
    """Return the folders that may be deleted: not live, of an older token, unchanged for ``grace`` seconds.

    ``now`` is the store's clock in seconds since the epoch. Pure.
    """
    left = find_leftovers(objects, live)
    return [item.folder for item in left if item.token < writer_token and now - item.modified > grace]


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
