"""The key that encrypts a vault's files: 256 random bits, named by a variable, as text or as a file's path.

    openssl rand -base64 32 > run.enc && export VAULTLAYER_ENCRYPTION_KEY=run.enc

A key is known by its id, which a manifest notes: it is derived from the key, and says nothing about it.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vaultlayer_hf.errors import MissingExtraError, SettingsError

ENCRYPTION = "VAULTLAYER_ENCRYPTION_KEY"
SIZE = 32
"""Bytes of a key."""
_LIMIT = 4096
"""Bytes of a key's file, at most."""


@dataclass(frozen=True)
class Key:
    """A key: ``id`` are 16 hex digits by which it is known, ``secret`` its 32 bytes."""

    id: str
    secret: bytes = field(repr=False)


def encryption_key() -> Key | None:
    """Return the key that this process's variable names; None where none is named.

    Raises SettingsError for one that can't be used, MissingExtraError.
    """
    named = os.environ.get(ENCRYPTION, "").strip()
    return _load(named) if named else None


@lru_cache(maxsize=4)
def _load(named: str) -> Key:
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise MissingExtraError(
            f"{ENCRYPTION} is set, and encryption needs cryptography: pip install 'vaultlayer-hf[encrypt]'"
        ) from error
    try:
        secret = _bytes_of(named) or _bytes_of(_content(named))
    except (OSError, ValueError):  # what it says could repeat the key
        secret = None
    if secret is None:
        raise SettingsError(
            f"{ENCRYPTION} can't be used: it is neither {SIZE} random bytes as base64 or hex, nor the path of a file "
            "of them that can be read (a relative path counts from the folder in which the program runs). "
            f"`openssl rand -base64 {SIZE}` makes a key"
        )
    derived = HKDF(SHA256(), 8, salt=None, info=b"vaultlayer_hf key id").derive(secret)
    return Key(derived.hex(), secret)


def _bytes_of(text: str) -> bytes | None:
    """Return the key that a text is; None where it is none."""
    try:
        if len(text) == 2 * SIZE:
            return bytes.fromhex(text)
        found = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return found if len(found) == SIZE else None


def _content(path: str) -> str:
    with open(Path(path).expanduser(), "rb") as file:
        return file.read(_LIMIT).decode("ascii").strip()
