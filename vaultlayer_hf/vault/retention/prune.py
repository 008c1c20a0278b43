"""Prune: retire by an entry first, delete after; and clean up what was uploaded and never committed.

What may be deleted, and why nothing else. A vault can be any folder or prefix, one in which a person keeps files, too
(``.`` say), and a person's own ``data/1/raw`` is laid out as a checkpoint folder is. So to lie under ``data/`` proves
nothing: a folder is deleted only where something that we alone write says that it is ours.

- A retired folder is named by a log entry, and only a commit ever put that name there.
- An orphan, which no entry names, has a name that our writer gives (``checkpoint-<step>``), and holds our mark (written
  ahead of its first file) or manifest, which names that very token. So neither a data set is deleted nor a copy of a
  checkpoint that a person put there under another number or name. What carries no mark costs space: it stays.

Never deleted: what a live commit refers to, and anything that another token may still be writing. An orphan
of an older token is deleted only after a grace, counted by the store's own clock: its writer is fenced, yet
may be asleep in the middle of an upload. The mark goes last: a deletion that is cut short is gone on with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vaultlayer_hf.errors import CorruptError, ObjectNotFoundError
from vaultlayer_hf.stores.base import ObjectInfo, Store
from vaultlayer_hf.stores.probe import PROBES, clear_probes
from vaultlayer_hf.vault.keys import DATA, META, manifest_key, split_folder, upload_key
from vaultlayer_hf.vault.log.entry import Commit, VaultState
from vaultlayer_hf.vault.log.log import Writer
from vaultlayer_hf.vault.manifest import MANIFEST_LIMIT, decode_manifest, is_mark

ORPHAN_GRACE = 24 * 3600.0
"""Seconds that an orphan of an older token is left alone after its last change."""
_OUR_NAME = re.compile(r"checkpoint-[0-9]+(\.[0-9]+)?")
"""The names that ``sending.folder_name`` gives."""


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
    """Delete every object of a checkpoint folder, what says that it is ours last. Raises StoreError."""
    if split_folder(folder) is None:
        raise ValueError(f"{folder!r} is no checkpoint folder")
    keys = [item.key for item in store.list(f"{folder}/")]
    marks = [key for key in keys if key.startswith(f"{folder}/{META}/")]
    store.delete([key for key in keys if key not in set(marks)])
    store.delete(marks)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A checkpoint folder in the store that no live commit refers to.

    Attributes:
        folder: its key prefix.
        token: of the writer that made it.
        objects, bytes: what it holds.
        modified: when it was last changed, in seconds since the epoch by the store's clock.
        mark: key of the object that says that the folder is ours; None: nothing does, so it is never deleted.
    """

    folder: str
    token: int
    objects: int
    bytes: int
    modified: float
    mark: str | None = None


def find_leftovers(objects: Iterable[ObjectInfo], live: set[str]) -> list[Leftover]:
    """Return the folders below ``data/`` that aren't live, ordered by name. Pure."""
    found: dict[str, Leftover] = {}
    for item in objects:
        folder = "/".join(item.key.split("/")[:3])
        place = split_folder(folder)
        if place is not None and folder not in live:
            old = found.get(folder, Leftover(folder, place[0], 0, 0, 0.0))
            marks = item.key in (upload_key(folder), manifest_key(folder)) and _OUR_NAME.fullmatch(place[1])
            found[folder] = Leftover(
                folder,
                old.token,
                old.objects + 1,
                old.bytes + item.size,
                max(old.modified, item.modified),
                item.key if marks else old.mark,  # of the two the upload's, which comes later in a listing
            )
    return [found[folder] for folder in sorted(found)]


def find_orphans(
    objects: Iterable[ObjectInfo], writer_token: int, live: set[str], now: float, grace: float = ORPHAN_GRACE
) -> list[Leftover]:
    """Return what may be deleted if its mark holds: not live, of an older token, unchanged for ``grace`` seconds.

    ``now`` is the store's clock in seconds since the epoch. Pure.
    """
    left = [item for item in find_leftovers(objects, live) if item.mark is not None]
    return [item for item in left if item.token < writer_token and now - item.modified > grace]


def check_mark(store: Store, leftover: Leftover) -> Leftover:
    """Return a leftover without its mark where that isn't what our writer puts there. Raises StoreError."""
    return (
        leftover if leftover.mark is not None and _is_ours(store, leftover) else replace(leftover, mark=None)
    )


def _is_ours(store: Store, leftover: Leftover) -> bool:
    key = leftover.mark or ""
    try:
        data = store.read(key, limit=MANIFEST_LIMIT)
        if key == upload_key(leftover.folder):
            return is_mark(data, leftover.folder)
        return decode_manifest(data, key).token == leftover.token
    except (CorruptError, ObjectNotFoundError):
        return False


def clean_orphans(store: Store, writer: Writer, grace: float = ORPHAN_GRACE) -> list[str]:
    """Delete orphans of older tokens and return their folders; delete stale probes, too. Raises StoreError."""
    key = f"{PROBES}clock-{os.urandom(8).hex()}"
    store.write(key, b"")
    now = store.head(key).modified
    store.delete([key])
    clear_probes(store, now)
    state = writer.state
    live = {commit.folder for commit in state.commits} | set(state.retiring)
    found = find_orphans(store.list(DATA), writer.token, live, now, grace)
    orphans = [item.folder for item in found if check_mark(store, item).mark is not None]
    for folder in orphans:
        delete_folder(store, folder)
    return orphans
