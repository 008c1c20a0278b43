"""Errors of an object store's client and server as errors of a store: short, on one line, without secrets.

obstore hands over the text of the server's answer, an XML document; status and code are read from it. What a code
means, and what is to be done, are the provider's words.
"""

from __future__ import annotations

import re

from obstore import exceptions

from vaultlayer_hf.base.secrets import redact
from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from vaultlayer_hf.stores.objects.provider import NO_STORE, Provider
from vaultlayer_hf.stores.proxies import way_hint

_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})\b")
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_SERVER = re.compile(r"Error performing [A-Z]+ (https?://[^/\s?]+)")
_REGION = re.compile(r"<Region>([a-z0-9\-]{1,40})</Region>")
"""In the answer of S3 to a request that was signed for another region than the bucket's."""
_QUERY = re.compile(r"\?\S+=\S*")
_METADATA = ("169.254.169.254", "metadata.google.internal")

_TRANSIENT_STATUS = {408, 409, 425, 429}


def translate(operation: str, key: str, error: Exception, provider: Provider) -> StoreError:
    """Return the store's error for an exception of obstore, in the provider's words."""
    text = redact(str(error))
    status, code = _first(_STATUS, text), _first(_CODE, text)
    if code.isdigit():  # of one object in a request for many, where Azure gives its status alone
        status, code = status or code, ""
    number = int(status) if status else 0
    if code in provider.denied:
        reason, fix = provider.denied[code]
        if provider.denied[code] == provider.denied.get("PermanentRedirect") and (
            region := _first(_REGION, text)
        ):
            reason, fix = f"the bucket is in the region {region}", f"set AWS_REGION={region}"
        needs = provider.needs(operation) if fix == provider.check_permissions else ""
        return StoreDeniedError(operation, key, reason + needs, fix)
    if "token request" in text and number < 500 and number not in _TRANSIENT_STATUS:
        return StoreDeniedError(operation, key, _no_token(text, number), provider.check_keys)
    if "az account get-access-token" in text:
        return StoreDeniedError(operation, key, "az login has no valid token", provider.check_keys)
    if number == 507 or code in provider.full:
        return StoreFullError(operation, key, "the store is full", provider.full_fix)
    if isinstance(error, exceptions.AlreadyExistsError) and code not in provider.undecided:
        return AlreadyExistsError(operation, key, "exists already")
    if number == 501:
        return StoreError(operation, key, "the server doesn't implement this")
    if number >= 500 or number in _TRANSIENT_STATUS or code in provider.unavailable:
        return StoreUnavailableError(operation, key, f"the server answered {status} {code}".rstrip())
    if isinstance(error, FileNotFoundError) or code in provider.missing:
        return ObjectNotFoundError(operation, key, "no such object")
    if isinstance(error, exceptions.UnauthenticatedError) and "credential provider" in text:
        return StoreDeniedError(operation, key, "no usable credentials", provider.check_keys)
    denied = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError
    if isinstance(error, denied) or number in (401, 403):
        # A machine may refuse to hand out credentials (403): that says nothing of rights in the store.
        if any(mark in _first(_SERVER, text) for mark in _METADATA) or _asks_machine(text):
            return StoreDeniedError(operation, key, "no credentials were found", provider.check_keys)
        reason = f"access denied {code}".rstrip() + provider.needs(operation)
        return StoreDeniedError(operation, key, reason, provider.check_permissions)
    if "redirect" in text.lower() and "PermanentRedirect" in provider.denied:
        return StoreDeniedError(operation, key, *provider.denied["PermanentRedirect"])
    if "Invalid range" in text:  # the memory store's 416
        return StoreError(operation, key, "the object ends before")
    if number:
        return StoreError(operation, key, f"the server answered {status} {code}".rstrip())
    if isinstance(error, ValueError | exceptions.NotSupportedError | exceptions.InvalidPathError):
        return StoreError(operation, key, _line(text))
    return _no_answer(operation, key, text, provider)


def _asks_machine(text: str) -> bool:
    """Tell whether it was AWS's metadata server that didn't answer well: the last place to ask for credentials."""
    return "/latest/api/token" in text or "/latest/meta-data/" in text


def _no_token(text: str, number: int) -> str:
    server = _first(_SERVER, text)
    if not number or any(mark in server for mark in _METADATA):  # the last place to ask for credentials
        return "no credentials were found"
    return f"{server} gives no token for these credentials: it answered {number}"


def _no_answer(operation: str, key: str, text: str, provider: Provider) -> StoreError:
    server = _first(_SERVER, text) or "the server"
    low = text.lower()
    if _asks_machine(text):
        return StoreDeniedError(operation, key, "no credentials were found", provider.check_keys)
    if "invalid list response" in low or "extract metadata" in low:
        return StoreUnavailableError(operation, key, NO_STORE, provider.check_endpoint)
    if "certificate" in low:
        return StoreDeniedError(
            operation, key, f"{server} shows a certificate that isn't trusted", provider.check_tls
        )
    if "dns error" in low:
        return StoreUnavailableError(
            operation, key, f"the name of {server} isn't found", way_hint(server) or provider.check_address
        )
    for mark, reason in (
        ("connectionrefused", f"{server} refuses the connection"),
        ("connection refused", f"{server} refuses the connection"),
        ("timedout", f"{server} didn't answer in time"),
        ("timed out", f"{server} didn't answer in time"),
        ("kind: timeout", f"{server} didn't answer in time"),
        ("kind: connect", f"{server} can't be reached"),
        ("http error", f"the connection to {server} broke"),
    ):
        if mark in low:
            return StoreUnavailableError(operation, key, reason, way_hint(server))
    return StoreUnavailableError(operation, key, _line(text))


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return next((group for group in match.groups() if group), "") if match else ""


def _line(text: str) -> str:
    """The first line, cut, without what follows the summary and what follows a "?" (a signature)."""
    line = _QUERY.sub("?…", text.strip().partition("\n")[0])
    return line if len(line) <= 200 else line[:200] + "…"
