"""Open a vault for reading."""

from __future__ import annotations

import os

from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.retry import RetryingStore, RetryPolicy
from vaultlayer_hf.uri import parse_vault
from vaultlayer_hf.vault.vault import Vault


def open_vault(vault: str | os.PathLike[str], *, patience: float = 30.0) -> Vault:
    """Open a vault to list, look into and verify its checkpoints.

    Args:
        vault: its URI, as for ``resume=``; an ``@<step>`` is ignored.
        patience: seconds for which a store that doesn't answer is tried again.

    Raises VaultUriError, MissingExtraError, StoreError, CorruptError.
    """
    store = open_store(parse_vault(vault), create=False)
    return Vault(RetryingStore(store, RetryPolicy(deadline=patience)))
