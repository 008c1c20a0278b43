"""An entry of the log made from outside a run: behind whatever is the newest, while a run may be writing.

On a store without create-if-absent it could overwrite what a run is just writing. There it is refused, unless whoever
calls knows that no run is writing. A lost answer is settled by the write id.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vaultlayer_hf.errors import AlreadyExistsError, StoreError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import probe_create
from vaultlayer_hf.vault.keys import entry_key
from vaultlayer_hf.vault.log.entry import Entry, VaultState, encode_entry
from vaultlayer_hf.vault.log.log import Log, now, read_whole, who
from vaultlayer_hf.vault.signature import check_may_write


@dataclass(frozen=True)
class Addition:
    """What an entry is to say.

    Attributes:
        kind: of the entry.
        token: the claim under which it stands; None: it is a claim itself.
        detail: what it notes, beside who has made it.
        state: the state after it.
    """

    kind: Literal["claim", "pin"]
    token: int | None
    detail: dict[str, Any]
    state: VaultState


Make = Callable[[Entry | None, int], Addition | None]
"""The newest entry that can be read, if there is one, and the number of the next; returns what that is to say, or None
where nothing is to be added."""


def append_beside(store: Store, what: str, make: Make, *, alone: bool = False) -> Entry | None:
    """Append an entry and return it, or the one that says it already; None where ``make`` adds nothing to no log.

    ``what``: the deed, for an error. ``make`` is asked again where another has written meanwhile, and may raise.
    ``alone``: no run is writing to this vault, so a store without create-if-absent will do. Raises what ``make``
    raises; StoreError where the store is in trouble (a repetition is safe) or lacks create-if-absent.
    """
    if not alone and not probe_create(store):
        raise StoreError(
            what,
            "",
            "this store can't create an object only if it is absent, so this could overwrite what a run is writing",
            f"{what} while no run is writing, with alone=True or --alone",
        )
    log, write_id = Log(store), uuid.uuid4().hex
    number, before = log.last()
    check_may_write(before is not None and before.signed, store.uri)
    while True:
        number += 1
        added = make(before, number)
        if added is None:
            return before
        token = number if added.token is None else added.token
        entry = Entry(number, added.kind, write_id, token, now(), {**added.detail, **who()}, added.state)
        try:
            store.create(entry_key(number), encode_entry(entry))
        except AlreadyExistsError:
            found = read_whole(log, number)
            if found is not None and found.write_id == write_id:
                return found
            before = found or before
            continue
        return entry
