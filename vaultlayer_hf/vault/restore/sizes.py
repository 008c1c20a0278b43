"""Sizes: what a listing alone shows of a checkpoint's files."""

from __future__ import annotations

from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.vault.manifest import FileEntry


def sizes_of(store: Store, folder: str) -> dict[str, int]:
    """Return the size in bytes of each object below a checkpoint's folder, by key. Raises StoreError."""
    return {item.key: item.size for item in store.list(f"{folder}/")}


def wrong_size(sizes: dict[str, int], folder: str, entry: FileEntry) -> str:
    """Return in words how a file's size isn't that of its manifest; empty where it is."""
    key = f"{folder}/{entry.path}"
    if key not in sizes:
        return f"{key}: it is missing"
    if sizes[key] == entry.size:
        return ""
    return f"{key}: it has {sizes[key]} bytes, its manifest says {entry.size}"
