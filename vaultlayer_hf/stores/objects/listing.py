"""Helpers of ObjectStore: where a listing has to start, and its order.

Amazon lists by the bytes of the keys, as a store promises. SeaweedFS lists folder by folder: all of ``a/`` before
``a-b``, although "-" is less than "/".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import obstore

from vaultlayer_hf.errors import StoreError
from vaultlayer_hf.stores.base import ObjectInfo

AT_ONCE = 1000
"""Objects that are read and sorted before the first is handed on: what S3 gives in one answer. So the order of a server
counts for nothing where there are no more."""


def safe_offset(after: str) -> str:
    """Return a place to start a listing from: just before the keys that are greater than ``after``.

    SeaweedFS sorts folder by folder (a/b before a-b) and, told to start after ``a``, leaves out ``a/b``. Up
    to the first character below ``/`` its order is that of the bytes, so the offset is cut there; and it ends
    just below what remains, so that it names no folder whose objects are wanted.
    """
    for index, character in enumerate(after):
        if character < "/":
            after = after[:index]
            break
    after = after.rstrip("/")
    while after and not after[-1].isascii():
        after = after[:-1].rstrip("/")
    if not after:
        return ""
    below = chr(ord(after[-1]) - 1)
    return after[:-1] + ("." if below == "/" else below) + "~"


def names_below(client: Any, prefix: str) -> list[str]:
    """Return the names of what has a ``/`` behind it directly below a prefix of obstore's ``client``."""
    found = obstore.list_with_delimiter(client, prefix.rstrip("/") or None)["common_prefixes"]
    return [path.rstrip("/").rpartition("/")[2] for path in found]


def in_order(found: Iterable[ObjectInfo], prefix: str) -> Iterator[ObjectInfo]:
    """Yield objects by the bytes of their keys, as they come, whichever of the two orders the server has.

    What lies in a folder below ``prefix`` is held back until a key comes that no sibling can precede: folder by folder,
    ``a-b`` comes after ``a/``, but before ``a0``. So no more than one such folder is in memory, and of ``log/``, which
    has none, nothing.

    Raises StoreError where the server has another order, and so many objects that it matters.
    """
    left = iter(found)
    first = list(islice(left, AT_ONCE))
    if len(first) < AT_ONCE:
        yield from sorted(first, key=_bytes)
        return
    held: list[ObjectInfo] = []
    folder, last = "", b""
    for info in chain(first, left):
        name = info.key[len(prefix) :]
        if held and not (name.startswith(folder) and name[len(folder) : len(folder) + 1] <= "/"):
            held.sort(key=_bytes)
            last = _bytes(held[-1])
            yield from held
            held = []
        if _bytes(info) <= last:
            raise StoreError(
                "list", prefix, "the server lists objects in an order that isn't that of their keys"
            )
        if not held:
            folder, slash, _ = name.partition("/")
            if not slash:
                last = _bytes(info)
                yield info
                continue
        held.append(info)
    yield from sorted(held, key=_bytes)


def _bytes(info: ObjectInfo) -> bytes:
    return info.key.encode()
