"""How bytes are sealed: in segments, each of which can be opened by itself, so that any range can be read.

The construction is Tink's streaming AEAD "AES-GCM-HKDF", as its template AES256_GCM_HKDF_1MB has it, byte for byte
(https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming), which goes back to Hoang, Reyhanitabar,
Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance (CRYPTO 2015):

    header     length (1 byte: 40), salt (32), nonce prefix (7)
    segment    AES-256-GCM under HKDF-SHA256(key, salt), nonce = prefix, number (4 bytes, big endian), 1 in the last

A segment and its tag are 1 MiB of the sealed object; the header counts into the first, the last may be shorter. Each
object has a salt of its own, so a key may seal any number of them. That a segment was changed, moved, left out or
added is found when it is opened. There is no associated data: whether an object is the right one of those that the key
has sealed is for the digest in its manifest to say, and for the signature to vouch for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vaultlayer_hf.stores.encryption.key import Key

Data = bytes | bytearray | memoryview

SEGMENT = 2**20
"""Bytes of a sealed segment, its tag included."""
HEADER = 40
_SALT, _PREFIX, _TAG = 32, 7, 16
_FIRST = SEGMENT - HEADER - _TAG
_OTHER = SEGMENT - _TAG
"""Plain bytes of the first segment, and of each other."""
SMALLEST = HEADER + _TAG
"""Bytes of an empty object, sealed."""


class ChangedError(Exception):
    """A segment isn't what this key has sealed in its place."""


def sealed_size(plain: int) -> int:
    """Return the bytes that ``plain`` bytes have when they are sealed."""
    return HEADER + plain + _TAG * (1 + max(0, -(-(plain - _FIRST) // _OTHER)))


def plain_size(sealed: int) -> int:
    """Return the bytes that a sealed object of this size holds; 0 where none has that size."""
    return max(0, sealed - HEADER - _TAG * -(-sealed // SEGMENT))


def segment_of(offset: int) -> int:
    """Return the number of the segment that holds the plain byte at this offset."""
    return 0 if offset < _FIRST else 1 + (offset - _FIRST) // _OTHER


def plain_start(number: int) -> int:
    """Return the offset of the first plain byte of a segment."""
    return 0 if number == 0 else _FIRST + (number - 1) * _OTHER


def sealed_start(number: int) -> int:
    """Return the offset of a segment in the sealed object."""
    return HEADER if number == 0 else number * SEGMENT


@dataclass(frozen=True)
class Sealed:
    """One sealed object: its header, and the cipher that belongs to it."""

    key: Key
    header: bytes

    @classmethod
    def new(cls, key: Key) -> Sealed:
        """Return what a new object begins with."""
        return cls(key, bytes([HEADER]) + os.urandom(_SALT + _PREFIX))

    @cached_property
    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        salt = self.header[1 : 1 + _SALT]
        return AESGCM(HKDF(SHA256(), 32, salt=salt, info=b"").derive(self.key.secret))

    def seal(self, number: int, plain: Data, last: bool) -> bytes:
        """Return a segment, sealed."""
        return bytes(self._cipher.encrypt(self._nonce(number, last), plain, None))

    def open(self, number: int, sealed: Data, last: bool) -> bytes:
        """Return a segment's plain bytes. Raises ChangedError."""
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._cipher.decrypt(self._nonce(number, last), sealed, None))
        except (InvalidTag, ValueError):
            raise ChangedError from None

    def _nonce(self, number: int, last: bool) -> bytes:
        return self.header[1 + _SALT :] + number.to_bytes(4, "big") + bytes([last])


def segments(key: Key, read: Callable[[int], Data], size: int) -> Iterator[bytes]:
    """Yield a new sealed object: its header, then its segments. ``read(n)`` gives the next n plain bytes."""
    sealed = Sealed.new(key)
    yield sealed.header
    last = segment_of(max(0, size - 1))
    for number in range(last + 1):
        end = size if number == last else plain_start(number + 1)
        yield sealed.seal(number, read(end - plain_start(number)), number == last)


class Exactly:
    """Reads exactly as many bytes as are asked for, from pieces of any size."""

    def __init__(self, pieces: Iterator[Data]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes, fewer where there are no more. Raises what the pieces raise."""
        parts: list[memoryview] = []
        while length:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
            parts.append(self._rest[:length])
            self._rest = self._rest[len(parts[-1]) :]
            length -= len(parts[-1])
        return b"".join(parts)
