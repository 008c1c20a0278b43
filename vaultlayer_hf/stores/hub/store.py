"""HubStore: a vault in a model repository of the Hugging Face Hub.

A repository is a git one: each write is a commit on its branch main, and a read asks for what main holds then. A
commit that names its parent is refused (412) where main has moved on meanwhile. That makes ``create`` atomic: the key
is absent in the commit that the new one names as its parent, so nobody can have created it in between.

What follows from git, and can't be otherwise: a commit for each file of a checkpoint, of which the Hub takes a limited
number an hour; and what is deleted stays in the history, and is paid for, until somebody squashes that.

Files go to the Hub's LFS storage over HTTP, and not by its Xet client: that one takes no stream, so neither a bandwidth
limit nor a stop would reach an upload.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi, get_token
from huggingface_hub.hf_api import RepoFile

from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.base import ObjectInfo, Pace, Store, check_key
from vaultlayer_hf.stores.hub.repository import BRANCH, TRIES, Repository, busy
from vaultlayer_hf.stores.hub.source import PacedFile
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.stores.variables import server_address

_DATED_AT_ONCE, _AT_ONCE = 50, 500
"""Paths that the Hub is asked about in one request, with the dates of their commits (50: its own page) and without."""


def open_hub(address: VaultAddress) -> HubStore:
    """Open a vault in a repository of the Hub. Looks for a token, but sends nothing yet.

    Without one, a public repository can be read. HF_TOKEN, else the file of ``hf auth login``; HF_ENDPOINT names
    another server. Raises SettingsError where that is no address.
    """
    named = os.environ.get("HF_ENDPOINT")
    api = HfApi(endpoint=server_address(named, "HF_ENDPOINT") if named else None)
    store = HubStore(Repository(api, address.bucket), uri=address.uri, prefix=address.prefix)
    if get_token():
        store.credentials = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "hf auth login"
    return store


class HubStore(Store):
    """A store in a model repository, or below a prefix of it.

    Args:
        repository: it has to exist.
        uri: what to call the vault in messages.
        prefix: what every key starts with in the repository, without slashes around it.
    """

    def __init__(self, repository: Repository, *, uri: str, prefix: str = "") -> None:
        self.uri = uri
        self.supports_create = True
        self._repository = repository
        self._prefix = f"{prefix}/" if prefix else ""

    def read(self, key: str, *, limit: int) -> bytes:
        data = self._repository.get("read", key, self._path("read", key), 0, limit + 1)
        if len(data) > limit:
            raise StoreError("read", key, f"has more than the {limit} bytes allowed here")
        return data

    def read_range(self, key: str, start: int, length: int) -> memoryview:
        path, asked = self._path("read_range", key), f"{length} bytes from {start} were asked for"
        if length <= 0 or start < 0:
            size = self.head(key).size
            if length < 0 or start < 0 or start > size:
                raise StoreError("read_range", key, f"{asked}, it has {size}")
            return memoryview(b"")
        data = self._repository.get("read_range", key, path, start, length)
        if len(data) != length:
            raise StoreError("read_range", key, f"{asked}, {len(data)} came")
        return memoryview(data)

    def head(self, key: str) -> ObjectInfo:
        return self._info("head", key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        if prefix:
            check_key("list", prefix[:-1])
        paths = self._repository.paths("list", prefix, (self._prefix + prefix).rstrip("/"))
        keys = [path[len(self._prefix) :] for path in paths if path.startswith(self._prefix + prefix)]
        keys = sorted((key for key in keys if key > after), key=str.encode)
        for at in range(0, len(keys), _DATED_AT_ONCE):
            few = keys[at : at + _DATED_AT_ONCE]
            files = self._files("list", few, dated=True)
            yield from (_info_of("list", key, files[key]) for key in few if key in files)

    def create(self, key: str, data: bytes) -> None:
        path = self._path("create", key)
        addition = self._repository.addition("create", key, path, io.BytesIO(data))
        for _ in range(TRIES):
            parent = self._repository.newest_commit("create", key)
            if self._repository.files("create", key, [path], revision=parent):
                raise AlreadyExistsError("create", key, "exists already")
            if self._repository.commit_once("create", key, [addition], parent):
                return
        raise busy("create", key)

    def write(self, key: str, data: bytes) -> None:
        addition = self._repository.addition("write", key, self._path("write", key), io.BytesIO(data))
        self._repository.commit("write", key, [addition])

    def upload(self, key: str, source: Path, *, size: int, pace: Pace | None = None) -> ObjectInfo:
        path = self._path("upload", key)
        with contextlib.closing(PacedFile(key, source, size)) as file:
            try:
                addition = self._repository.addition("upload", key, path, file)
                file.pace_with(pace)
                self._repository.send("upload", key, addition)
                self._repository.commit("upload", key, [addition])
            except BaseException:
                if file.error is not None:  # the client wraps it, or shows only what followed
                    raise file.error from None
                raise
        return self._arrived("upload", key, size)

    def copy(self, source: str, target: str) -> ObjectInfo:
        origin, path = self._path("copy", source), self._path("copy", target)
        file = self._repository.files("copy", source, [origin]).get(origin)
        if file is None:
            raise ObjectNotFoundError("copy", source, "no such object")
        if file.lfs is None:  # small; older clients copy only what is in LFS
            self.write(target, self.read(source, limit=file.size))
        else:
            copied = CommitOperationCopy(origin, path, src_revision=BRANCH)
            self._repository.commit("copy", target, [copied])
        return self._arrived("copy", target, file.size)

    def delete(self, keys: Iterable[str]) -> None:
        every = list(dict.fromkeys(keys))
        for key in every:
            self._path("delete", key)
        for at in range(0, len(every), _AT_ONCE):
            self._delete(every[at : at + _AT_ONCE])

    def _delete(self, keys: Sequence[str]) -> None:
        for _ in range(TRIES):
            there = self._files("delete", keys)
            if not there:
                return
            gone = [CommitOperationDelete(self._prefix + key, is_folder=False) for key in there]
            with contextlib.suppress(ObjectNotFoundError):  # somebody else has deleted one of them
                if self._repository.commit_once("delete", "", gone):
                    return
        raise busy("delete", "")

    def _files(self, operation: str, keys: Sequence[str], *, dated: bool = False) -> dict[str, RepoFile]:
        """Return by their keys what the Hub knows of those of the objects that exist."""
        paths = [self._path(operation, key) for key in keys]
        found = self._repository.files(operation, keys[0] if len(keys) == 1 else "", paths, dated=dated)
        return {path[len(self._prefix) :]: file for path, file in found.items()}

    def _info(self, operation: str, key: str) -> ObjectInfo:
        file = self._files(operation, [key], dated=True).get(key)
        if file is None:
            raise ObjectNotFoundError(operation, key, "no such object")
        return _info_of(operation, key, file)

    def _arrived(self, operation: str, key: str, size: int) -> ObjectInfo:
        """Return what the Hub has under ``key``. Raises StoreError where it has left it out, as by a .gitignore."""
        try:
            info = self._info(operation, key)
        except ObjectNotFoundError:
            reason = "the Hub has left the file out of the commit"
            raise StoreError(operation, key, reason, "see the repository's .gitignore") from None
        if info.size != size:
            raise StoreUnavailableError(operation, key, f"{size} bytes were sent, the Hub has {info.size}")
        return info

    def _path(self, operation: str, key: str) -> str:
        return self._prefix + check_key(operation, key)


def _info_of(operation: str, key: str, file: RepoFile) -> ObjectInfo:
    if file.last_commit is None:
        raise StoreUnavailableError(operation, key, "the Hub doesn't say when it was written")
    tag = file.lfs.sha256 if file.lfs is not None else file.blob_id
    return ObjectInfo(key, file.size, tag, file.last_commit.date.timestamp())
