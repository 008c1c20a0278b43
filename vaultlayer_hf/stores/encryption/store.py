"""EncryptedStore: what lies in the store of a checkpoint's files is sealed; what goes in and comes out is plain.

Sealed are the files of the checkpoints, whatever holds weights, optimizer or data: names and sizes, the log and the
manifests stay readable, since they are what a vault is looked through by. Sizes are told as they are without the seal.

It stands right around the store itself: retries, bandwidth caps and the process that moves large files work on it as on
any other. A range costs the segments that it touches; an object's header and size are asked for once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vaultlayer_hf.errors import ObjectNotFoundError, StoreError
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, Take, WrappedStore
from vaultlayer_hf.stores.encryption.key import ENCRYPTION, Key
from vaultlayer_hf.stores.encryption.sealing import (
    HEADER,
    SEGMENT,
    SMALLEST,
    ChangedError,
    Exactly,
    Sealed,
    plain_size,
    plain_start,
    sealed_size,
    sealed_start,
    segment_of,
    segments,
)
from vaultlayer_hf.stores.objects.parts import file_chunks

_KNOWN = 64
"""Objects whose header is kept."""


def holds_a_file(key: str) -> bool:
    """Tell whether a vault's key is that of a checkpoint's file: ``data/<token>/<name>/...``, but for ``.vault/``."""
    parts = key.split("/", 4)
    return len(parts) > 3 and parts[0] == "data" and parts[3] != ".vault"


@dataclass(frozen=True)
class _Object:
    sealed: Sealed
    size: int  # of the sealed object, in bytes

    @property
    def plain(self) -> int:
        return plain_size(self.size)


class EncryptedStore(WrappedStore):
    """A store that holds files sealed.

    Args:
        inner: the store to use.
        key: what to seal with.
        covers: tells by its key which object is sealed.
    """

    def __init__(self, inner: Store, key: Key, covers: Callable[[str], bool] = holds_a_file) -> None:
        super().__init__(inner)
        self.encryption = key.id
        self.credentials = inner.credentials
        self.reopen = inner.reopen
        self._key, self._covers = key, covers
        self._known: dict[str, _Object] = {}
        self._lock = threading.Lock()

    def read(self, key: str, *, limit: int) -> bytes:
        if not self._covers(key):
            return self.inner.read(key, limit=limit)
        data = memoryview(self.inner.read(key, limit=sealed_size(limit)))
        if len(data) < SMALLEST:
            raise _changed("read", key)
        sealed = Sealed(self._key, bytes(data[:HEADER]))
        last = (len(data) - 1) // SEGMENT
        try:
            return b"".join(
                sealed.open(number, data[sealed_start(number) : (number + 1) * SEGMENT], number == last)
                for number in range(last + 1)
            )
        except ChangedError:
            raise _changed("read", key) from None

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        if not self._covers(key):
            return self.inner.read_range(key, start, length)
        found = bytearray()
        self.read_pieces(key, start, length, lambda offset, piece: found.extend(piece))
        return memoryview(found)

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        if not self._covers(key):
            self.inner.read_pieces(key, start, length, take)
            return
        there = self._object(key)
        if start < 0 or length < 0 or start + length > there.plain:
            there = self._object(key, anew=True)
        if start < 0 or length < 0 or start + length > there.plain:
            raise StoreError("read_range", key, f"{start}+{length} was asked for, it has {there.plain}")
        done = 0

        def keep(offset: int, piece: memoryview) -> None:
            nonlocal done
            take(offset, piece)
            done = offset + len(piece) - start

        while done < length:
            try:
                self._read(key, there, start + done, start + length, keep)
            except (ChangedError, StoreError) as error:
                changed = isinstance(error, ChangedError)
                now = self._object(key, anew=True) if changed or type(error) is StoreError else there
                if now == there:
                    raise (_changed("read_range", key) if changed else error) from None
                there = now  # it was written anew since its header was read

    def _read(self, key: str, there: _Object, start: int, end: int, take: Take) -> None:
        """Hand the plain bytes from ``start`` to before ``end`` to ``take``. Raises ChangedError."""
        number, last = segment_of(start), segment_of(there.plain - 1)
        first = sealed_start(number)
        gathered = bytearray()

        def open_next(data: memoryview | bytearray) -> None:
            nonlocal number
            plain = memoryview(there.sealed.open(number, data, number == last))
            at = plain_start(number)
            low, high = max(0, start - at), min(len(plain), end - at)
            number += 1
            take(at + low, plain[low:high])

        def gather(_: int, piece: memoryview) -> None:
            while len(piece):
                wanted = min(sealed_start(number + 1), there.size) - sealed_start(number)
                if not gathered and len(piece) >= wanted:
                    data, piece = piece[:wanted], piece[wanted:]
                    open_next(data)
                    continue
                room = wanted - len(gathered)
                gathered.extend(piece[:room])
                piece = piece[room:]
                if len(gathered) == wanted:
                    open_next(gathered)
                    gathered.clear()

        stop = min(sealed_start(segment_of(end - 1) + 1), there.size)
        self.inner.read_pieces(key, first, stop - first, gather)

    def head(self, key: str) -> ObjectInfo:
        return self._plain(self.inner.head(key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return map(self._plain, self.inner.list(prefix, after=after))

    def create(self, key: str, data: bytes) -> None:
        self.inner.create(key, self._sealed(data) if self._covers(key) else data)

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, self._sealed(data) if self._covers(key) else data)

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        if not self._covers(key):
            return self.inner.upload(key, source, size=size, pace=pace)
        with file_chunks(key, source, size, pace) as chunks:
            return self.upload_from(key, Exactly(chunks).read, size=size, pace=pace)

    def upload_from(
        self, key: str, read: Callable[[int], bytes], *, size: int, pace: Pace | None = None
    ) -> ObjectInfo:
        if not self._covers(key):
            return self.inner.upload_from(key, read, size=size, pace=pace)
        sealing = Exactly(segments(self._key, read, size))
        return self._plain(self.inner.upload_from(key, sealing.read, size=sealed_size(size), pace=pace))

    def copy(self, source: str, target: str) -> ObjectInfo:
        if self._covers(source) != self._covers(target):
            return super().copy(source, target)
        return self._plain(self.inner.copy(source, target))

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)

    def _plain(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, size=plain_size(info.size)) if self._covers(info.key) else info

    def _sealed(self, data: bytes) -> bytes:
        return b"".join(segments(self._key, Exactly(iter((data,))).read, len(data)))

    def _object(self, key: str, anew: bool = False) -> _Object:
        """Return what is known of a sealed object; ask for it once, or ``anew``."""
        with self._lock:
            found = None if anew else self._known.get(key)
        if found is None:
            try:
                size = self.inner.head(key).size
            except ObjectNotFoundError as error:
                raise ObjectNotFoundError("read_range", key, error.reason) from None
            if size < SMALLEST:
                raise _changed("read_range", key)
            found = _Object(Sealed(self._key, bytes(self.inner.read_range(key, 0, HEADER))), size)
            with self._lock:
                while len(self._known) >= _KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[key] = found
        return found


def _changed(operation: str, key: str) -> StoreError:
    return StoreError(
        operation, key, f"it is damaged, or wasn't encrypted with the key that {ENCRYPTION} names"
    )
