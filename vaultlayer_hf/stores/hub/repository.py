"""What is asked of a repository of the Hub: which files main holds, their bytes, and a commit on top of it."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_token, hf_hub_url, utils
from huggingface_hub.hf_api import RepoFile

from vaultlayer_hf.errors import (
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.hub.errors import is_conflict, translate

_T = TypeVar("_T")
_http: Any = utils  # the same names in all its releases; it doesn't say that it exports them

BRANCH = "main"
TRIES = 20
"""Commits that are tried while others come in between, before it is left to whoever retries later."""
_TIMEOUT = 300.0
"""Seconds without a byte after which a read is given up."""


class Repository:
    """A model repository, as one store uses it. Paths are those in the repository; ``operation`` and ``key`` are what
    errors name.

    Args:
        api: the client, with its endpoint. Its token is looked for at each call.
        name: ``namespace/name``.
    """

    def __init__(self, api: HfApi, name: str) -> None:
        self.api, self.name = api, name
        self._committing = threading.Lock()  # commits of one process would only refuse each other
        for module in ("_commit_api", "hf_api"):
            logging.getLogger(f"huggingface_hub.{module}").addFilter(_worth_saying)
        logging.getLogger("huggingface_hub.utils._http").addFilter(_retries_of(name))

    def get(self, operation: str, key: str, path: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes of a file from ``start``. Raises ObjectNotFoundError, StoreError."""
        url = hf_hub_url(self.name, path, revision=BRANCH, endpoint=self.api.endpoint)
        wanted = {"range": f"bytes={start}-{start + length - 1}", "accept-encoding": "identity"}

        def get() -> bytes:
            headers = {**_http.build_hf_headers(token=self.api.token), **wanted}
            answer = _http.get_session().get(url, headers=headers, timeout=_TIMEOUT)
            if answer.status_code == 416:  # it ends before
                return b""
            _http.hf_raise_for_status(answer)
            data: bytes = answer.content
            return data[start : start + length] if answer.status_code == 200 else data

        return self.call(operation, key, get)

    def files(
        self,
        operation: str,
        key: str,
        paths: Sequence[str],
        *,
        revision: str = BRANCH,
        dated: bool = False,
    ) -> dict[str, RepoFile]:
        """Return by their paths those of the files that exist; with the dates of their commits where asked."""
        try:
            found = self.call(
                operation,
                key,
                lambda: self.api.get_paths_info(self.name, list(paths), expand=dated, revision=revision),
            )
        except ObjectNotFoundError:
            return {}
        return {item.path: item for item in found if isinstance(item, RepoFile)}

    def paths(self, operation: str, key: str, folder: str) -> list[str]:
        """Return the paths of all files in a folder and below."""

        def paths() -> list[str]:
            tree = self.api.list_repo_tree(self.name, folder or None, recursive=True, revision=BRANCH)
            return [item.path for item in tree if isinstance(item, RepoFile)]

        try:
            return self.call(operation, key, paths)
        except ObjectNotFoundError:  # git knows no empty folder
            return []

    def newest_commit(self, operation: str, key: str) -> str:
        """Return the commit that main is at."""
        refs = self.call(operation, key, lambda: self.api.list_repo_refs(self.name))
        for branch in refs.branches:
            if branch.name == BRANCH:
                return branch.target_commit
        raise StoreDeniedError(operation, key, f"the repository {self.name} has no branch main")

    def addition(self, operation: str, key: str, path: str, content: Any) -> CommitOperationAdd:
        """Return what adds a file with the content of a stream to a commit."""
        return self.call(operation, key, lambda: CommitOperationAdd(path, content))

    def send(self, operation: str, key: str, addition: CommitOperationAdd) -> None:
        """Send a file's bytes ahead of its commit, where it is one for LFS."""

        def send() -> None:
            self.api.preupload_lfs_files(self.name, [addition], revision=BRANCH, free_memory=False)

        self.call(operation, key, send)

    def commit(self, operation: str, key: str, operations: Sequence[Any]) -> None:
        """Make a commit on top of whatever main holds. Raises StoreError."""
        for _ in range(TRIES):
            if self.commit_once(operation, key, operations):
                return
        raise busy(operation, key)

    def commit_once(
        self, operation: str, key: str, operations: Sequence[Any], parent: str | None = None
    ) -> bool:
        """Make a commit and return True; False where another one came before it, and nothing has happened.

        ``parent``: where main isn't at that commit any more, another one came before.
        Of a file that has the same bytes already the client makes none: what creates an object names its writer in it.
        """

        def create_commit() -> bool:
            try:
                with self._committing:
                    self.api.create_commit(
                        self.name,
                        operations,
                        commit_message=f"{operation} {key}".strip(),
                        revision=BRANCH,
                        parent_commit=parent,
                    )
            except Exception as error:
                if is_conflict(error):
                    return False
                raise
            return True

        return self.call(operation, key, create_commit)

    def call(self, operation: str, key: str, function: Callable[[], _T]) -> _T:
        """Return what a function returns; its errors come out as errors of a store."""
        self.api.token = get_token() or False  # a person may log in again while a training runs
        try:
            return function()
        except StoreError:
            raise
        except Exception as error:  # "from None": the client's text holds addresses that are signed
            raise translate(operation, key, error, self.name, token=bool(self.api.token)) from None


def busy(operation: str, key: str) -> StoreUnavailableError:
    """Return the error for commits of others that come in between again and again."""
    return StoreUnavailableError(operation, key, "others commit to the repository all the time")


class _OtherRequests(logging.Filter):
    """Leaves out what the client says of its retries for one repository: a vault in trouble is said by its run.

    The client tells of a retry in two records: what went wrong at which address, then when it tries again.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._address, self._said = f"/{name}/", threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is of something else."""
        said = record.getMessage()
        if "thrown while requesting" in said:
            self._said.ours = self._address in said
        elif not said.startswith("Retrying in"):
            return True
        return not getattr(self._said, "ours", False)


@functools.cache
def _retries_of(name: str) -> _OtherRequests:
    return _OtherRequests(name)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what the client says of each stream, that it goes over HTTP, and of bytes that are there already."""
    said = record.getMessage()
    return "not supported by Xet" not in said and "No files have been modified" not in said
