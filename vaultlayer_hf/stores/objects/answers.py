"""Helpers of ObjectStore: who may ask the client, and what its answers mean."""

from __future__ import annotations

import os
from typing import Any

from vaultlayer_hf.errors import StoreError, StoreUnavailableError
from vaultlayer_hf.stores.base import ObjectInfo
from vaultlayer_hf.stores.objects.provider import NO_STORE, Provider

_user = 0  # the process that has started the client's threads; a forked child inherits the number


def same_process(operation: str, key: str) -> None:
    """Raise StoreError in a forked child: the client's threads aren't there."""
    global _user
    me = os.getpid()
    _user = _user or me
    if _user != me:
        hint = "start processes that need it with the spawn method"
        raise StoreError(operation, key, "an object store can't be used in a forked process", hint)


def object_info(operation: str, key: str, meta: Any, provider: Provider) -> ObjectInfo:
    """Return what the client says of an object; raise StoreUnavailableError where no store can have said that."""
    modified = meta["last_modified"].timestamp()
    if meta["e_tag"] is None and not modified:
        raise StoreUnavailableError(operation, key, NO_STORE, provider.check_endpoint)
    tag = meta["e_tag"]  # Azure puts it into quotation marks in some answers, and in others not
    return ObjectInfo(key, meta["size"], tag.strip('"') if tag else tag, modified)


def client_failed(operation: str, key: str, error: BaseException) -> StoreUnavailableError:
    """Return the error for the client's own code giving up; raise any other error as it is.

    That one, where no file can be opened, say, is no Exception: it would end the thread that uploads, unseen.
    """
    if type(error).__name__ != "PanicException":
        raise error
    what = (str(error).splitlines() or ["it doesn't say why"])[0]
    hint = "see the limits of open files and processes (ulimit -n, ulimit -u), and start again"
    return StoreUnavailableError(operation, key, f"the store's client failed: {what}", hint)


def too_short(key: str, start: int, length: int, reason: str) -> StoreError:
    """Return the error of a range that the object doesn't have."""
    return StoreError("read_range", key, f"bytes {start} to {start + length} were asked for, {reason}")


def no_bytes(key: str, start: int, length: int, size: int) -> memoryview:
    """Return the empty range at ``start`` of an object of this size. Raises StoreError where there is none."""
    if length < 0 or start < 0 or start > size:
        raise too_short(key, start, length, f"it has {size}")
    return memoryview(b"")
