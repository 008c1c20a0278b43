"""Ways in which a vault goes bad or is forged, and what must follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vault.vaults import content, start, tree, write_checkpoint
from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.parse import dump

MANIFEST, PART = ".vault/manifest.json", ".vault/part-0.json"
NEWEST = "data/1/checkpoint-200"

Damage = Callable[[bytes], bytes | None]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda data: b"",
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "zero tail": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "deleted": lambda data: None,
}


def damage(store: Store, key: str, how: Damage) -> None:
    """Replace an object by what a damage makes of it."""
    data = how(store.read(key, limit=2**26))
    if data is None:
        store.delete([key])
    else:
        store.write(key, data)


def swap(store: Store, one: str, other: str) -> None:
    """Let two objects change places."""
    first, second = store.read(one, limit=2**26), store.read(other, limit=2**26)
    assert first != second
    store.write(one, second)
    store.write(other, first)


def assert_older_is_used(vault: str, output: Path, key: str) -> None:
    """Check that a start refuses the newest checkpoint because of ``key``, and goes on from the one before."""
    outside = tree(output.parent, without=(output, output.parent / "vault"))
    path, heard = start(vault, output)
    assert path == output / "checkpoint-100"
    assert key in heard.reasons("walk-back")
    assert content(path) == content(write_checkpoint(output / "expected", 100))
    assert not (output / "checkpoint-200").exists()
    assert tree(output.parent, without=(output, output.parent / "vault")) == outside


def hostile(store: Store, change: Callable[[dict[str, Any]], Any], manifest: bytes | None = None) -> None:
    """Change the newest manifest, and forge the log entry so that it vouches for it."""
    key, entry = f"{NEWEST}/{MANIFEST}", "log/00000000000000000003.json"
    body = json.loads(store.read(key, limit=2**26))
    change(body)
    data = json.dumps(body).encode() if manifest is None else manifest
    store.write(key, data)
    log = json.loads(store.read(entry, limit=2**26))
    commit = log["state"]["commits"][-1]
    commit["manifest"], commit["manifest_size"] = digest_bytes(data), len(data)
    del log["check"]
    store.write(entry, dump({**log, "check": digest_bytes(dump(log))}))
