"""Parts: what each node brings in of one checkpoint, told through the store alone.

<folder>/.vault/part-<node>.json      the node's files are in, and these they are
<folder>/.vault/refused-<node>.json   the node has given this checkpoint up, and why

The node that commits looks for them in one listing each time, whatever their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from vaultlayer_hf.errors import CorruptError, VaultLayerError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.keys import META, part_key, refused_key
from vaultlayer_hf.vault.manifest import MANIFEST_LIMIT, FileEntry, decode_part
from vaultlayer_hf.vault.parse import FORMAT_VERSION, dump, load

_READERS = 32
"""Parts that are read at once."""
_REASON_LIMIT = 500


class PartMissingError(VaultLayerError):
    """A node's files didn't come in time, or the node has given them up."""


def refuse_part(store: Store, folder: str, node: int, reason: str) -> None:
    """Say that a node's files won't come, so that nobody waits for them. Raises StoreError."""
    text = "".join(letter if letter.isprintable() else " " for letter in reason)[:_REASON_LIMIT]
    store.write(
        refused_key(folder, node), dump({"format_version": FORMAT_VERSION, "node": node, "reason": text})
    )


def collect_parts(
    store: Store,
    folder: str,
    nodes: Sequence[int],
    timeout: float,
    waiting: Callable[[Collection[int], float], None],
) -> tuple[FileEntry, ...]:
    """Wait until every node's part is in, and return all their files, node by node.

    ``waiting`` is called with the nodes that are missing and the seconds waited so far, and may raise to give
    up. Raises PartMissingError after ``timeout`` seconds or where a node has refused, CorruptError, StoreError.
    """
    begin = time.monotonic()
    found: dict[int, tuple[FileEntry, ...]] = {}
    pause = 0.05
    while len(found) < len(nodes):
        there = {item.key for item in store.list(f"{folder}/{META}/")}
        missing = [node for node in nodes if node not in found]
        found |= _read_parts(store, folder, [node for node in missing if part_key(folder, node) in there])
        missing = [node for node in missing if node not in found]
        for node in missing:
            if refused_key(folder, node) in there:
                raise PartMissingError(f"node {node} has given it up: {_reason(store, folder, node)}")
        if missing:
            waited = time.monotonic() - begin
            waiting(missing, waited)
            if waited > timeout:
                raise PartMissingError(
                    f"node {', '.join(map(str, missing[:8]))} hasn't brought in its part after {waited:.0f} s "
                    "(part_timeout)"
                )
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)
    entries = tuple(entry for node in nodes for entry in found[node])
    if len({entry.path for entry in entries}) != len(entries):
        raise CorruptError(f"{folder}: two nodes have brought in the same file")
    return entries


def _read_parts(store: Store, folder: str, nodes: list[int]) -> dict[int, tuple[FileEntry, ...]]:
    def read(node: int) -> tuple[FileEntry, ...]:
        key = part_key(folder, node)
        return decode_part(store.read(key, limit=MANIFEST_LIMIT), node, key)

    if len(nodes) < 2:
        return {node: read(node) for node in nodes}
    with ThreadPoolExecutor(min(_READERS, len(nodes)), thread_name_prefix="vaultlayer-parts") as pool:
        return dict(zip(nodes, pool.map(read, nodes), strict=True))


def _reason(store: Store, folder: str, node: int) -> str:
    key = refused_key(folder, node)
    return load(store.read(key, limit=MANIFEST_LIMIT), key).text("reason", limit=_REASON_LIMIT)
