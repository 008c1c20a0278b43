"""Opens an ObjectStore on a client of obstore, with the patience that suits a vault."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from obstore import exceptions

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.stores.objects.provider import Provider
from vaultlayer_hf.stores.objects.store import ObjectStore
from vaultlayer_hf.stores.uri import VaultAddress

CONNECT_TIMEOUT = timedelta(seconds=10)
QUICK_TIMEOUT = timedelta(seconds=60)  # of a request that moves little
TRANSFER_TIMEOUT = timedelta(seconds=300)  # of one part or range; 8 MiB at 28 kB/s


def open_objects(
    make: Callable[..., Any],
    address: VaultAddress,
    provider: Provider,
    *,
    upload_concurrency: int,
    options: dict[str, Any],
) -> ObjectStore:
    """Open a vault's store on two clients, of which one gives up sooner; nothing is sent yet.

    Args:
        make: makes a client; called with ``client_options`` and ``retry_config``.
        address: the vault's.
        provider: whose store it is.
        upload_concurrency: parts of one file that are sent at a time, at most.
        options: client options of obstore, without time-outs.

    Raises SettingsError where the file of authorities can't be read.
    """
    try:
        transfer, quick = (
            make(
                client_options={**options, "connect_timeout": CONNECT_TIMEOUT, "timeout": timeout},
                # Few: patience is the business of RetryingStore, which can be stopped and reports.
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
            )
            for timeout in (TRANSFER_TIMEOUT, QUICK_TIMEOUT)
        )
    except (ValueError, exceptions.BaseError) as error:
        if "root_certificate" not in options or "ertificate" not in str(error):
            raise
        raise SettingsError(f"the file of authorities can't be read as PEM: {provider.check_tls}") from None
    return ObjectStore(
        transfer,
        quick=quick,
        uri=address.uri,
        prefix=address.prefix,
        provider=provider,
        upload_concurrency=upload_concurrency,
    )
