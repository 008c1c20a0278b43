"""The whole log, entry by entry: for questions about the past. Resuming never needs it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from vaultlayer_hf.errors import CorruptError, FormatVersionError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import LOG, entry_number
from vaultlayer_hf.vault.log.entry import Entry
from vaultlayer_hf.vault.log.log import Log

_AT_ONCE = 16
"""Requests under way at a time."""


def read_entries(store: Store, on_damage: Callable[[str], None]) -> list[Entry]:
    """Return every whole entry, oldest first; ``on_damage`` is told of the others. Raises StoreError."""
    log = Log(store)
    numbers = [number for item in store.list(LOG) if (number := entry_number(item.key)) is not None]

    def read(number: int) -> Entry | str:
        try:
            return log.read(number)
        except FormatVersionError:
            raise
        except CorruptError as error:
            return str(error)

    found = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="vaultlayer-entries") as pool:
        for entry in pool.map(read, numbers):
            if isinstance(entry, str):
                on_damage(entry)
            else:
                found.append(entry)
    return found
