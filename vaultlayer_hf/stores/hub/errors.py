"""Errors of huggingface_hub's client and of the Hub as errors of a store: short, on one line, without secrets.

The client stands on requests up to its release 0.36 and on httpx since: their own errors are known by their packages.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import constants
from huggingface_hub import errors as client

from vaultlayer_hf.errors import (
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.proxies import proxy_hint

CHECK_TOKEN = "call hf auth login, or set HF_TOKEN to an access token that may write to the repository"
_CHECK_REPOSITORY = "create it (hf repos create), check its name, or use a token that may see it"
_FEWER = (
    "the Hub takes 128 commits an hour from a free account, and a save makes one for each file: save less often, or use"
    " a bucket, hf://buckets/namespace/name"
)
_NETWORK = {"requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}
_CONFLICTS = {409, 412}


def status_of(error: BaseException) -> int:
    """Return the HTTP status of the answer that an error was made of; 0 where there was none."""
    return int(getattr(getattr(error, "response", None), "status_code", None) or 0)


def is_conflict(error: BaseException) -> bool:
    """Whether a commit was refused because another came before it."""
    return status_of(error) in _CONFLICTS


def translate(operation: str, key: str, error: Exception, repository: str, *, token: bool) -> StoreError:
    """Return the store's error for an exception of the client.

    Args:
        operation, key: what was asked for.
        error: what the client raised.
        repository: ``namespace/name``.
        token: whether one was found on this machine.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # how the client hands on what became of a file
    status, said = status_of(error), _said(error)
    if isinstance(error, client.RepositoryNotFoundError):  # gated ones, too
        unseen = "this token may not see it" if token else "it is private: no access token was found"
        hint = _CHECK_REPOSITORY if token else CHECK_TOKEN
        return StoreDeniedError(operation, key, f"there is no repository {repository}, or {unseen}", hint)
    if isinstance(error, client.RevisionNotFoundError):
        return StoreDeniedError(operation, key, f"the repository {repository} has no branch main")
    if isinstance(error, client.EntryNotFoundError):
        return ObjectNotFoundError(operation, key, "no such object")
    if isinstance(error, client.OfflineModeIsEnabled):
        return StoreDeniedError(operation, key, "HF_HUB_OFFLINE is set", "unset it for this run")
    if status == 429:
        return StoreUnavailableError(operation, key, "the Hub's rate limit is reached", _FEWER)
    if status in (402, 403, 413, 507) and ("storage" in said or "quota" in said):
        return StoreFullError(
            operation, key, "the account's storage on the Hub is full", "delete something there"
        )
    if status == 401:
        reason = "the Hub doesn't take this access token" if token else "no access token was found"
        return StoreDeniedError(operation, key, reason, CHECK_TOKEN)
    if status == 403:
        return StoreDeniedError(
            operation, key, "access denied", f"the token needs to be allowed to write to {repository}"
        )
    if status >= 500 or status in (408, 409, 412, 425):
        return StoreUnavailableError(operation, key, f"the Hub answered {status}")
    if status:
        return StoreError(operation, key, f"the Hub answered {status}")
    if type(error).__module__.partition(".")[0] in _NETWORK or isinstance(error, OSError):
        reason = f"the Hub can't be reached ({type(error).__name__})"
        return StoreUnavailableError(operation, key, reason, proxy_hint(constants.ENDPOINT))
    if isinstance(error, KeyError | TypeError) or type(error).__name__ == "JSONDecodeError":
        reason = "something answers, and not as the Hub does"
        return StoreUnavailableError(operation, key, reason, "check HF_ENDPOINT and the proxy")
    return StoreError(
        operation, key, f"huggingface_hub refuses it: {str(error).strip().partition(chr(10))[0][:200]}"
    )


def _said(error: Any) -> str:
    """The server's own words, where it gave any; for looking into, never for showing."""
    return str(getattr(error, "server_message", None) or "").lower()
