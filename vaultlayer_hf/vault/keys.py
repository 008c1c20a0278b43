"""Where things lie in a vault.

<vault>/log/00000000000000000001.json      the log: numbered entries, created once, never changed or deleted
<vault>/hint.json                          the number of a recent entry; may be stale, wrong or missing
<vault>/data/<token>/<name>/...            a checkpoint folder exactly as the Trainer wrote it
<vault>/data/<token>/<name>/.vault/...     upload.json, part-<node>.json, refused-<node>.json and manifest.json of it
<vault>/probe/...                          short-lived objects by which a store's promises are tried
"""

from __future__ import annotations

import re

LOG = "log/"
DATA = "data/"
HINT = "hint.json"
META = ".vault"
"""The folder of our own files inside a checkpoint; a checkpoint's own files may not lie there."""

_ENTRY = re.compile(r"log/([0-9]{20})\.json")
_FOLDER = re.compile(r"data/([1-9][0-9]{0,18})/([^/\\\x00-\x1f\x7f\ud800-\udfff]{1,255})")


def entry_key(number: int) -> str:
    """Return the key of log entry ``number``; keys sort as their numbers do."""
    return f"{LOG}{number:020d}.json"


def entry_number(key: str) -> int | None:
    """Return the number of a log entry's key, or None for any other key."""
    match = _ENTRY.fullmatch(key)
    return int(match[1]) if match else None


def folder_key(token: int, name: str) -> str:
    """Return the key prefix (without a final slash) of a checkpoint's folder."""
    return f"{DATA}{token}/{name}"


def split_folder(folder: str) -> tuple[int, str] | None:
    """Return (token, name) of a checkpoint folder's key prefix, or None where it is none."""
    match = _FOLDER.fullmatch(folder)
    return (int(match[1]), match[2]) if match and match[2] not in (".", "..") else None


def manifest_key(folder: str) -> str:
    """Return the key of a checkpoint's manifest."""
    return f"{folder}/{META}/manifest.json"


def upload_key(folder: str) -> str:
    """Return the key of the mark that an upload of ours has begun to fill a folder."""
    return f"{folder}/{META}/upload.json"


def part_key(folder: str, node: int) -> str:
    """Return the key of the list of files that one node has uploaded."""
    return f"{folder}/{META}/part-{node}.json"


def refused_key(folder: str, node: int) -> str:
    """Return the key by which a node says that it has given a checkpoint up."""
    return f"{folder}/{META}/refused-{node}.json"
