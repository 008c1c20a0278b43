"""Open a vault for reading."""

from __future__ import annotations

import os

from vaultlayer_hf.errors import ObjectNotFoundError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.reader.vault import Vault


def open_vault(vault: str | os.PathLike[str], *, patience: float = 30.0) -> Vault:
    """Open a vault to list, look into and verify its checkpoints.

    Args:
        vault: its URI, as for ``resume=``; an ``@<step>`` is ignored.
        patience: seconds for which a store that doesn't answer is tried again.

    Raises VaultUriError, MissingExtraError, StoreError, CorruptError; ObjectNotFoundError, a StoreError, where no
    run has claimed a vault yet, whatever kind of store it is: an absent folder, an empty one, an unused prefix.
    """
    address = parse_vault(vault)
    absent = ObjectNotFoundError(
        "open",
        "",
        f"there is no vault at {address.uri} yet",
        "check the URI; a run makes it at its first start",
    )
    try:
        store = open_store(address, create=False)
    except ObjectNotFoundError as error:
        raise absent from error
    opened = Vault(RetryingStore(store, RetryPolicy(deadline=patience)))
    if opened.state is None:
        raise absent
    return opened
