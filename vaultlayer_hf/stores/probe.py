"""What a store really promises: found out by trying, because names and documentation aren't evidence."""

from __future__ import annotations

import contextlib
import re
import uuid

from vaultlayer_hf.errors import AlreadyExistsError, StoreError
from vaultlayer_hf.stores.base import Store

PROBES = "probe/"
"""What the keys of probes start with."""
PROBE_GRACE = 24 * 3600.0
"""Seconds after which a probe is one that a killed process left behind: who is alive removes its own within seconds."""
_OURS = re.compile(re.escape(PROBES) + r"(clock-[0-9a-f]{16}|[0-9a-f]{32}(\.json)?)")
"""The keys that probes get, of whichever kind. Whatever else lies there is somebody else's, and stays."""


def clear_probes(store: Store, now: float) -> list[str]:
    """Delete the probes that killed processes left behind, and return their keys.

    ``now``: seconds since the epoch by the store's clock. Raises StoreError.
    """
    stale = [
        item.key
        for item in store.list(PROBES)
        if _OURS.fullmatch(item.key) and now - item.modified > PROBE_GRACE
    ]
    store.delete(stale)
    return stale


def probe_create(store: Store) -> bool:
    """Try whether ``create`` refuses an object that exists, leave nothing behind, return whether it does.

    Sets ``store.supports_create`` to the answer. False: the vault is for a single writer. A positive answer
    can't prove that racing creates are told apart, but no server is known that refuses the second create and
    lets two racing ones pass.

    Raises:
        StoreError: the store can't be written at all, so nothing was learnt.
    """
    key = f"{PROBES}{uuid.uuid4().hex}.json"
    first, second = b'{"probe": 1}', b'{"probe": 2}'
    promised = store.supports_create
    try:
        try:
            # A new name: if it exists already, the answer to an attempt before was lost.
            with contextlib.suppress(AlreadyExistsError):
                store.create(key, first)
        except StoreError as error:
            if type(error) is not StoreError:  # denied, full, out of reach: says nothing of create
                raise
            promised = False  # the server refuses conditional writes as such
        else:
            try:
                store.create(key, second)
            except AlreadyExistsError:
                promised = promised and store.read(key, limit=len(first)) == first
            else:
                promised = False
    finally:
        with contextlib.suppress(StoreError):
            store.delete([key])
    store.supports_create = promised and store.supports_create
    return store.supports_create
