"""The interface of a store: the few operations on objects that the commit protocol needs.

Contract, the same for every store (``vaultlayer_hf.testing.StoreConformance`` is its test):

- Keys are relative, ``/``-separated, without empty, ``.`` or ``..`` segments.
- An object is either absent or whole: no reader ever sees a part of a write, also after a power cut.
- When a write returns, it is durable, and every later read and listing sees it.
- ``create`` is create-if-absent, in one atomic step, where ``supports_create`` holds; of any number of
  racing creates of one key exactly one returns, the others raise AlreadyExistsError.
- A write that raises StoreUnavailableError may or may not have happened. Every other error means that it
  did not.
- All methods may be called from several threads.
- Errors are those of ``vaultlayer_hf.errors``, with operation and key, never with a secret.

Retries, bandwidth caps and injected faults are wrappers around a store, never inside one.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.errors import ObjectNotFoundError, StoreError

Pace = Callable[[int], None]
"""Called with the number of bytes that are about to be moved, on whichever thread moves them. It may block
(a bandwidth cap), count (a progress bar), or raise to cancel the transfer."""

Take = Callable[[int, memoryview], object]
"""Called with an offset and the bytes that lie there, on the thread that reads; good until the call returns."""
_PIECE = 8 * 2**20
"""Bytes of a piece that ``read_pieces`` hands on where a store has no better way."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object.

    Attributes:
        key: relative to the vault.
        size: bytes.
        etag: the store's own tag of this content, or None; compare for equality only.
        modified: last modification in seconds since the epoch, by the store's clock.
    """

    key: str
    size: int
    etag: str | None
    modified: float


class Store(ABC):
    """A place for objects: what the commit protocol asks of it, and all that it asks.

    To keep vaults elsewhere, derive from this class, implement the eight abstract methods, and have
    ``vaultlayer_hf.testing.StoreConformance`` test that they keep the contract in this module's docstring::

        class DatabaseStore(Store):
            def __init__(self, url: str) -> None:
                self.uri = "db://runs/llama"  # without the password that is in url

            def read(self, key: str, *, limit: int) -> bytes:
                ...

        class TestDatabaseStore(StoreConformance):
            @pytest.fixture
            def store(self) -> Store:
                return DatabaseStore(...)

    An instance is made once for a vault and used by several threads; a process that was forked makes its own.

    Attributes:
        uri: the vault's URI, without secrets, for messages.
        supports_create: whether ``create`` is atomic here. False means single-writer use only;
            ``probe_create`` in ``stores.probe`` finds out, names aren't trusted.
        encryption: id of the key that files are sealed with on this machine (encryption/); empty where none is.
        credentials: where its credentials were found, for people; empty where it needs none, or nobody knows.
        reopen: opens the same store in another process, so it is picklable; None where that can't be done.
    """

    uri: str
    supports_create: bool = True
    encryption: str = ""
    credentials: str = ""
    reopen: Callable[[], Store] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    @abstractmethod
    def read(self, key: str, *, limit: int) -> bytes:
        """Return a whole small object.

        Raises ObjectNotFoundError; StoreError where the object is larger than ``limit`` bytes (a hostile or
        broken vault must not fill the memory).
        """

    @abstractmethod
    def read_range(self, key: str, start: int, length: int) -> memoryview:
        """Return exactly ``length`` bytes from offset ``start``.

        Raises ObjectNotFoundError; StoreError where the object is shorter.
        """

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        """Hand exactly ``length`` bytes from offset ``start`` to ``take``, in order, in pieces of up to 8 MiB.

        For large ranges: no more than a piece is in memory. Raises as ``read_range`` does, after any number of
        pieces; an error that ``take`` raises comes out as it is.
        """
        if length <= 0:
            self.read_range(key, start, length)
        for offset in range(start, start + length, _PIECE):
            take(offset, self.read_range(key, offset, min(_PIECE, start + length - offset)))

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object. Raises ObjectNotFoundError."""

    @abstractmethod
    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with ``prefix`` and is greater than ``after``, ordered by key.

        ``prefix`` ends with ``/`` or is empty. An absent prefix yields nothing.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Create a small object if it is absent, durably. Raises AlreadyExistsError where it isn't."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Create or replace a small object, durably."""

    @abstractmethod
    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        """Create or replace an object with the first ``size`` bytes of a file, in bounded memory, durably.

        Raises StoreError where the file is shorter than ``size``. An error that ``pace`` raises leaves
        nothing visible and comes out as it is.
        """

    def upload_from(
        self, key: str, read: Callable[[int], bytes], *, size: int, pace: Pace | None = None
    ) -> ObjectInfo:
        """Create or replace an object with the ``size`` bytes that ``read`` gives, durably; for what is in no file.

        ``read`` is called with how many bytes are wanted, and gives as many. An error that it raises leaves nothing
        visible and comes out as it is. ``pace`` is only called with 0, while nothing can be sent yet.
        Through a temporary file of this machine, where a store has no better way.
        """
        check_key("upload", key)
        with tempfile.TemporaryDirectory(prefix="vaultlayer-upload-") as folder:
            passing = Path(folder) / "object"
            with open(passing, "wb") as file:
                for at in range(0, size, _PIECE):
                    file.write(read(min(_PIECE, size - at)))
            return self.upload(key, passing, size=size)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy an object inside the store, durably. Raises ObjectNotFoundError.

        Through a temporary file of this machine, where a store has no better way.
        """
        check_key("copy", target)
        try:
            size = self.head(check_key("copy", source)).size
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError("copy", source, error.reason) from None
        with tempfile.TemporaryDirectory(prefix="vaultlayer-copy-") as folder:
            passing = Path(folder) / "object"
            with open(passing, "wb") as file:
                if size:
                    self.read_pieces(source, 0, size, lambda offset, piece: file.write(piece))
            return self.upload(target, passing, size=size)

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; an absent one is no error."""

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders that lie directly in ``prefix``, which has no slash at its end.

        Empty where a store can't tell without a look at each object; it is only asked for what a person may have meant.
        """
        return []

    def exists(self, key: str) -> bool:
        """Tell whether an object exists."""
        try:
            self.head(key)
        except ObjectNotFoundError:
            return False
        return True


class WrappedStore(Store):
    """What every wrapper around a store has: the store inside, under its name and with its promise.

    Operations are left to each wrapper: none may pass one by unseen.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.uri = inner.uri
        self.encryption = inner.encryption

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def supports_create(self) -> bool:
        """Whether the store inside promises an atomic create."""
        return self.inner.supports_create

    @supports_create.setter
    def supports_create(self, value: bool) -> None:
        self.inner.supports_create = value


def check_key(operation: str, key: str) -> str:
    """Return ``key`` if it is a clean relative key; raise StoreError if it could leave the vault."""
    parts = key.split("/")
    if not key or "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise StoreError(operation, key, "not a clean relative key")
    return key
