"""Checkpoints that the log once vouched for and names no more, though nothing in it has taken them out.

A start needs the newest entry alone, which carries the whole state. Where that state has no checkpoint to go on from,
what came before is read as well, since a run would begin at step 0. In a log that only writers of this package have
written a checkpoint to go on from never goes away but by an archive: retention keeps the newest. So an entry before,
with a checkpoint, says that somebody has changed the log; so does a manifest whose writer's claim isn't there to read.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from vaultlayer_hf.errors import CorruptError, FormatVersionError, ObjectNotFoundError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import DATA, LOG, entry_number, manifest_key, split_folder
from vaultlayer_hf.vault.log.archive import archived_as
from vaultlayer_hf.vault.log.entry import Entry
from vaultlayer_hf.vault.log.log import Log

_AT_ONCE = 16
"""Requests under way at a time."""


def find_vanished(store: Store, log: Log, number: int) -> str | None:
    """Return in words what is wrong with a log whose entry ``number`` has no checkpoint to go on from; None: nothing.

    Reads back from that entry to the archive that took the checkpoints out, or to the first entry: one request an
    entry. Raises StoreError, FormatVersionError.
    """
    numbers = [found for item in store.list(LOG) if (found := entry_number(item.key)) is not None]
    back = [found for found in reversed(numbers) if found <= number]
    claims: set[int] = set()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="vaultlayer-entries") as pool:
        for at in range(0, len(back), _AT_ONCE):
            for entry in pool.map(lambda one: _read(log, one), back[at : at + _AT_ONCE]):
                if entry is None:
                    continue
                newest = entry.state.newest
                if newest is not None:
                    return (
                        f"entry {entry.number} of its log vouches for the checkpoint of step {newest.step} "
                        f"({newest.folder}), and later ones name none, though nothing in between has archived it"
                    )
                if archived_as(entry.detail) is not None:
                    return None
                if entry.kind == "claim":
                    claims.add(entry.number)
    for folder in _with_manifest(store):
        place = split_folder(folder)
        if place is not None and place[0] not in claims:
            return f"its log names no checkpoint and lacks the claim of the run that wrote {folder}"
    return None


def _read(log: Log, number: int) -> Entry | None:
    try:
        return log.read(number)
    except FormatVersionError:
        raise
    except (CorruptError, ObjectNotFoundError):
        return None


def _with_manifest(store: Store) -> list[str]:
    """Return the folders below ``data/`` in which a manifest lies."""
    end = manifest_key("")
    return [item.key.removesuffix(end) for item in store.list(DATA) if item.key.endswith(end)]
