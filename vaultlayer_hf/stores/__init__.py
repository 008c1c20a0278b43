"""Stores: where a vault's objects lie. ``open_store`` gives the one that an address names.

    base.py    the interface of a store
    kinds.py   kinds of addresses that name an object store
    mistaken.py  what can't be meant by an address, and what may have been
    others.py  stores of other authors, by an entry point
    pace.py    what a transfer calls before it moves bytes: a bandwidth cap, and several in one
    probe.py   what a store really promises
    proxies.py a proxy between this machine and a server, for errors
    retry.py   patience around a store
    uri.py     vault addresses
    variables.py  addresses of servers, keys and authorities, checked before a client gets them
    encryption/  files sealed on this machine, ahead of any store
    hub/       a vault in a repository of the Hugging Face Hub
    folder/    a vault in a folder of a local, network or FUSE file system
    objects/   vaults in object stores, through obstore

Imports base and errors; vault, session, run and cli import it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from vaultlayer_hf.stores.kinds import BUCKETS
from vaultlayer_hf.stores.uri import VaultAddress, parse_vault

if TYPE_CHECKING:
    from vaultlayer_hf.stores.base import Store

__all__ = ["open_store"]


def open_store(
    address: VaultAddress | str | os.PathLike[str], *, upload_concurrency: int = 8, create: bool = True
) -> Store:
    """Open the store of a vault; a step in the address is ignored.

    Args:
        address: a parsed address, or what ``parse_vault`` takes.
        upload_concurrency: parts of one file that are sent at a time, at most; for object stores.
        create: make an absent folder. Pass False to read: nothing is written then.

    Raises:
        VaultUriError: the text is no vault address.
        ObjectNotFoundError: the folder doesn't exist and ``create`` is False.
        StoreDeniedError: no credentials, or no permission to make the folder.
        MissingExtraError: an optional dependency is needed here.
        SettingsError: VAULTLAYER_ENCRYPTION_KEY names no key.
    """
    if not isinstance(address, VaultAddress):
        address = parse_vault(address)
    store: Store
    if address.scheme == "file":
        from vaultlayer_hf.stores.folder import FolderStore

        store = FolderStore(address.path, uri=address.uri, create=create)
    elif address.scheme == "az":
        from vaultlayer_hf.stores.objects.azure import open_azure

        store = open_azure(address, upload_concurrency=upload_concurrency)
    elif address.scheme == "gs":
        from vaultlayer_hf.stores.objects.google import open_google

        store = open_google(address, upload_concurrency=upload_concurrency)
    elif address.scheme == "hf" and not address.bucket.startswith(f"{BUCKETS}/"):
        from vaultlayer_hf.stores.hub.store import open_hub

        store = open_hub(address)
    elif address.scheme == "hf":
        from vaultlayer_hf.stores.objects.huggingface import open_hugging_face

        store = open_hugging_face(address, upload_concurrency=upload_concurrency)
    elif address.scheme != "s3":
        from vaultlayer_hf.stores.others import open_other

        store = open_other(address.scheme, address.uri)
    else:
        from vaultlayer_hf.stores.objects.s3 import open_s3

        store = open_s3(address, upload_concurrency=upload_concurrency)
    if os.environ.get("VAULTLAYER_ENCRYPTION_KEY", "").strip():
        from vaultlayer_hf.stores.encryption.key import encryption_key
        from vaultlayer_hf.stores.encryption.store import EncryptedStore

        key = encryption_key()
        store = EncryptedStore(store, key) if key is not None else store
    store.reopen = partial(open_store, address, upload_concurrency=upload_concurrency, create=False)
    return store
