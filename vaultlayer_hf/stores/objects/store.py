"""ObjectStore: a vault in an object store, through obstore (a Rust client with bounded memory).

An object store shows an object only when its last part is in, so a write needs no temporary name. A large
file goes up in parts of equal size, several at a time; one such upload runs at a time in a store, so that
memory is bounded whatever the caller's threads do, and small objects pass beside it.

S3 allows 10 000 parts of an object and copies no object larger than 5 GiB: parts grow with the file, and
such a copy is streamed down and up again.

The client's threads don't survive os.fork(), and what it has open is shared with the child: a child that used
it would hang, and could crash its parent. So it is refused there, whichever store the child opens.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore

from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, Take, check_key
from vaultlayer_hf.stores.objects.answers import client_failed, no_bytes, object_info, same_process, too_short
from vaultlayer_hf.stores.objects.errors import translate
from vaultlayer_hf.stores.objects.listing import AT_ONCE, in_order, names_below, safe_offset
from vaultlayer_hf.stores.objects.parts import CHUNK, LARGEST_COPY, Chunks, ahead, file_chunks, part_plan
from vaultlayer_hf.stores.objects.provider import NEUTRAL, NO_STORE, Provider

_T = TypeVar("_T")


class ObjectStore(Store):
    """A store in a bucket, or below a prefix of one.

    Args:
        client: any store of obstore.
        quick: the same store with short time-outs, for requests that move little; ``client`` by default.
        uri: what to call the vault in messages.
        prefix: what every key starts with in the bucket, without slashes around it.
        provider: whose store it is, for the words of errors.
        upload_concurrency: parts of one file that are under way at a time, at most.
    """

    def __init__(
        self,
        client: Any,
        *,
        uri: str,
        prefix: str = "",
        provider: Provider = NEUTRAL,
        upload_concurrency: int = 8,
        quick: Any = None,
    ) -> None:
        if upload_concurrency < 1:
            raise ValueError("upload_concurrency is at least 1")
        self.uri = uri
        self.provider = provider
        self.supports_create = True
        self.upload_concurrency = upload_concurrency
        self.largest_copy: int | None = LARGEST_COPY  # bytes; None: of any size
        self._client = client
        self._quick = client if quick is None else quick
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket_seen = self._honest = False
        self._uploading = threading.Lock()

    def read(self, key: str, *, limit: int) -> bytes:
        def get() -> bytes:
            answer = obstore.get(self._quick, self._name("read", key))
            size = object_info("read", key, answer.meta, self.provider).size
            if size > limit:
                raise StoreError("read", key, f"has {size} bytes, more than the {limit} allowed here")
            return bytes(answer.bytes())

        return self._call("read", key, get)

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        name = self._name("read_range", key)
        if length <= 0 or start < 0:
            return no_bytes(key, start, length, self.head(key).size)
        try:
            data = self._call(
                "read_range", key, lambda: obstore.get_range(self._client, name, start=start, length=length)
            )
        except StoreError as error:
            if type(error) is StoreError:  # 416, or a client that refuses a range behind the end
                raise too_short(key, start, length, error.reason) from None
            raise
        if len(data) != length:
            raise too_short(key, start, length, f"{len(data)} came")
        return memoryview(data)

    def read_pieces(self, key: str, start: int, length: int, take: Take) -> None:
        name = self._name("read_range", key)
        if length <= 0 or start < 0:
            self.read_range(key, start, length)
            return
        came = 0

        def ask() -> Iterator[Any]:
            answer = obstore.get(self._client, name, options={"range": (start + came, start + length)})
            return iter(answer.stream(min_chunk_size=1))  # as they come from the socket: nothing is copied

        def call(function: Callable[[], _T]) -> _T:
            try:
                return self._call("read_range", key, function)
            except StoreError as error:
                if type(error) is StoreError:
                    raise too_short(key, start, length, error.reason) from None
                raise

        rest = call(ask)
        while (data := call(lambda: next(rest, None))) is not None:
            view = memoryview(data)[: length - came]
            for at in range(0, len(view), CHUNK):
                take(start + came + at, view[at : at + CHUNK])
            came += len(view)
        if came != length:
            raise too_short(key, start, length, f"{came} came")

    def head(self, key: str) -> ObjectInfo:
        return self._head("head", key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        if prefix:
            check_key("list", prefix[:-1])
        start = safe_offset(after)
        offset = self._prefix + start if start else None

        def objects() -> Iterator[ObjectInfo]:
            same_process("list", prefix)
            pages = iter(obstore.list(self._quick, self._prefix + prefix, offset=offset, chunk_size=AT_ONCE))
            while (page := self._call("list", prefix, lambda: next(pages, None))) is not None:
                for meta in page:
                    yield object_info("list", meta["path"][len(self._prefix) :], meta, self.provider)

        empty = True
        for info in in_order((info for info in objects() if info.key > after), prefix):
            empty = False
            yield info
        if empty:
            self._check_emptiness(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        return self._call("list", prefix, lambda: names_below(self._quick, self._prefix + prefix))

    def create(self, key: str, data: bytes) -> None:
        name = self._name("create", key)
        if self.supports_create:
            self._call("create", key, lambda: obstore.put(self._quick, name, data, mode="create"))
            return
        if self.exists(key):  # a look and a write: good enough for the single writer that was announced
            raise AlreadyExistsError("create", key, "exists already")
        self.write(key, data)

    def write(self, key: str, data: bytes) -> None:
        name = self._name("write", key)
        self._call("write", key, lambda: obstore.put(self._quick, name, data, use_multipart=False))

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        self._name("upload", key)
        with file_chunks(key, source, size, pace) as chunks:
            return self._send("upload", key, chunks, pace)

    def upload_from(
        self, key: str, read: Callable[[int], bytes], *, size: int, pace: Pace | None = None
    ) -> ObjectInfo:
        return self._send("upload", key, Chunks("upload", key, size, read), pace)

    def copy(self, source: str, target: str) -> ObjectInfo:
        origin, name = self._name("copy", source), self._name("copy", target)
        info = self._head("copy", source)
        if self.largest_copy is not None and info.size > self.largest_copy:
            return self._stream_copy(source, target, info.size)
        self._call("copy", source, lambda: obstore.copy(self._client, origin, name))
        return self._arrived("copy", target, info.size)

    def delete(self, keys: Iterable[str]) -> None:
        names = [(key, self._name("delete", key)) for key in keys]
        if not names:
            return
        try:
            self._call("delete", "", partial(obstore.delete, self._quick, [name for _, name in names]))
        except ObjectNotFoundError:  # some stores say so, and stop there
            for key, name in names:
                with contextlib.suppress(ObjectNotFoundError):
                    self._call("delete", key, partial(obstore.delete, self._quick, name))

    def _head(self, operation: str, key: str) -> ObjectInfo:
        name = self._name(operation, key)
        try:
            meta = self._call(operation, key, lambda: obstore.head(self._quick, name))
            return object_info(operation, key, meta, self.provider)
        except ObjectNotFoundError:
            self._check_bucket(operation, key)  # the answer to HEAD has no body that tells which is missing
            raise

    def _send(self, operation: str, key: str, chunks: Chunks, pace: Pace | None) -> ObjectInfo:
        """Put what ``chunks`` yields under ``key``, and check that all of it arrived."""
        name, size = self._name(operation, key), chunks.size
        try:
            if size <= CHUNK:
                data = b"".join(chunks)
                self._call(operation, key, lambda: obstore.put(self._client, name, data, use_multipart=False))
            else:
                part, parallel = part_plan(size, self.upload_concurrency)
                with self._one_at_a_time(pace):
                    self._call(
                        operation,
                        key,
                        lambda: obstore.put(
                            self._client, name, chunks, chunk_size=part, max_concurrency=parallel
                        ),
                    )
        except BaseException:
            if chunks.error is not None:  # obstore hands it on; other errors may only be what followed
                raise chunks.error from None
            raise
        return self._arrived(operation, key, size)

    def _arrived(self, operation: str, key: str, size: int) -> ObjectInfo:
        """Return what the store has under ``key``; raise StoreUnavailableError where it has another size.

        So it is with Azure, too, which may answer before a copy is done: until then the blob is empty.
        """
        info = self._head(operation, key)
        if info.size != size:
            raise StoreUnavailableError(operation, key, f"{size} bytes were sent, the store has {info.size}")
        return info

    def _stream_copy(self, source: str, target: str, size: int) -> ObjectInfo:
        """Copy through this machine."""
        with ahead(size, partial(self.read_range, source)) as read:
            return self._send("copy", target, Chunks("copy", source, size, read), None)

    @contextlib.contextmanager
    def _one_at_a_time(self, pace: Pace | None) -> Iterator[None]:
        while not self._uploading.acquire(timeout=0.5):
            if pace is not None:
                pace(0)  # lets a waiting upload be cancelled
        try:
            yield
        finally:
            self._uploading.release()

    def _name(self, operation: str, key: str) -> str:
        return self._prefix + check_key(operation, key)

    def _call(self, operation: str, key: str, function: Callable[[], _T]) -> _T:
        same_process(operation, key)
        try:
            result = function()
        except StoreError:
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            # "from None": what obstore says is a dump of the server's answer
            failure = translate(operation, key, error, self.provider)
        except BaseException as error:
            failure = client_failed(operation, key, error)
        else:
            self._bucket_seen = True
            return result
        if isinstance(failure, AlreadyExistsError):
            self._bucket_seen = True
        raise failure from None

    def _check_bucket(self, operation: str, key: str) -> None:
        if self._bucket_seen:
            return
        try:
            self._call(
                operation, key, lambda: next(iter(obstore.list(self._quick, "log", chunk_size=1)), None)
            )
        except StoreDeniedError as error:
            if self.provider.bucket in error.reason:
                raise
        except StoreError:
            pass  # it can't be told; the object's absence stands

    def _check_emptiness(self, prefix: str) -> None:
        """Ask once for what can't exist: a login page answers that, too, and parses as an empty vault's listing."""
        if self._honest:
            return
        try:
            self._call("list", prefix, lambda: obstore.head(self._quick, f"{self._prefix}{uuid.uuid4().hex}"))
        except (ObjectNotFoundError, StoreDeniedError):
            self._honest = True
            return
        raise StoreUnavailableError("list", prefix, NO_STORE, self.provider.check_endpoint)
