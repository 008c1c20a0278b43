"""Errors of an object store's client and server as errors of a store: short, on one line, without secrets.

obstore hands over the text of the server's answer, an XML document; status and code are read from it.
"""

from __future__ import annotations

import re

from obstore import exceptions

from vaultlayer_hf.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})\b")
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_SERVER = re.compile(r"Error performing [A-Z]+ (https?://[^/\s?]+)")

CHECK_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_CHECK_PERMISSIONS = (
    "these credentials need s3:ListBucket on the bucket and Get, Put and DeleteObject on the prefix"
)
_CHECK_BUCKET = "create it, or check its name, AWS_REGION and AWS_ENDPOINT_URL"
_CHECK_REGION = "set AWS_REGION to the bucket's region"
_RENEW = "the temporary credentials have expired: renew them (aws sso login, or new AWS_* variables)"
_CHECK_CLOCK = "the clock of this machine is wrong: set it"
_CHECK_TLS = "name the authority of the server's certificate in AWS_CA_BUNDLE"

NO_STORE = "something answers, and not as an object store does"
CHECK_ENDPOINT = "check AWS_ENDPOINT_URL and the proxy; a network's login page looks like this"

_DENIED = {  # what the server's code means: a reason, and what to do
    "NoSuchBucket": ("the bucket doesn't exist", _CHECK_BUCKET),
    "InvalidBucketName": ("the bucket can't exist under this name", _CHECK_BUCKET),
    "InvalidAccessKeyId": ("the server doesn't know this access key", CHECK_KEYS),
    "SignatureDoesNotMatch": ("the secret key is wrong", CHECK_KEYS),
    "ExpiredToken": ("the credentials have expired", _RENEW),
    "ExpiredTokenException": ("the credentials have expired", _RENEW),
    "TokenRefreshRequired": ("the credentials have expired", _RENEW),
    "InvalidToken": ("the session token is wrong", _RENEW),
    "RequestTimeTooSkewed": ("the request's time is off", _CHECK_CLOCK),
    "RequestExpired": ("the request's time is off", _CHECK_CLOCK),
    "PermanentRedirect": ("the bucket is in another region", _CHECK_REGION),
    "TemporaryRedirect": ("the bucket is in another region", _CHECK_REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", _CHECK_REGION),
    "IllegalLocationConstraintException": ("the bucket is in another region", _CHECK_REGION),
    "AccessDenied": ("access denied", _CHECK_PERMISSIONS),
    "AllAccessDisabled": ("access denied", "the provider has disabled this bucket"),
    "AccountProblem": ("access denied", "the account has a problem: ask the provider"),
}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
"""Another write of the object is under way: it is unknown which one will stand."""
_TRANSIENT_STATUS = {408, 409, 425, 429}
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "NoSuchUpload", "IncompleteBody", "InternalError"}
"""NoSuchUpload: the completion of an upload was repeated after a lost answer, or the server forgot it."""


def translate(operation: str, key: str, error: Exception) -> StoreError:
    """Return the store's error for an exception of obstore."""
    text = str(error)
    status, code = _first(_STATUS, text), _first(_CODE, text)
    number = int(status) if status else 0
    if code in _DENIED:
        return StoreDeniedError(operation, key, *_DENIED[code])
    if number == 507 or code in _FULL:
        return StoreFullError(operation, key, "the store is full", "free some space, or raise the quota")
    if isinstance(error, exceptions.AlreadyExistsError) and code not in _CONFLICT:
        return AlreadyExistsError(operation, key, "exists already")
    if number == 501:
        return StoreError(operation, key, "the server doesn't implement this")
    if number >= 500 or number in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
        return StoreUnavailableError(operation, key, f"the server answered {status} {code}".rstrip())
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError(operation, key, "no such object")
    if isinstance(error, exceptions.UnauthenticatedError) and "credential provider" in text:
        return StoreDeniedError(operation, key, "no usable credentials", CHECK_KEYS)
    denied = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError
    if isinstance(error, denied) or number in (401, 403):
        return StoreDeniedError(operation, key, f"access denied {code}".rstrip(), _CHECK_PERMISSIONS)
    if "redirect" in text.lower():
        return StoreDeniedError(operation, key, "the bucket is in another region", _CHECK_REGION)
    if "Invalid range" in text:  # the memory store's 416
        return StoreError(operation, key, "the object ends before")
    if number:
        return StoreError(operation, key, f"the server answered {status} {code}".rstrip())
    if isinstance(error, ValueError | exceptions.NotSupportedError | exceptions.InvalidPathError):
        return StoreError(operation, key, _line(text))
    return _no_answer(operation, key, text)


def _no_answer(operation: str, key: str, text: str) -> StoreError:
    server = _first(_SERVER, text) or "the server"
    low = text.lower()
    if "/latest/api/token" in low or "/latest/meta-data/" in low:  # the last place to ask for credentials
        return StoreDeniedError(operation, key, "no credentials were found", CHECK_KEYS)
    if "invalid list response" in low or "extract metadata" in low:
        return StoreUnavailableError(operation, key, NO_STORE, CHECK_ENDPOINT)
    if "certificate" in low:
        return StoreDeniedError(
            operation, key, f"{server} shows a certificate that isn't trusted", _CHECK_TLS
        )
    for mark, reason in (
        ("dns error", f"the name of {server} isn't found"),
        ("connectionrefused", f"{server} refuses the connection"),
        ("connection refused", f"{server} refuses the connection"),
        ("timedout", f"{server} didn't answer in time"),
        ("timed out", f"{server} didn't answer in time"),
        ("kind: timeout", f"{server} didn't answer in time"),
        ("kind: connect", f"{server} can't be reached"),
        ("http error", f"the connection to {server} broke"),
    ):
        if mark in low:
            return StoreUnavailableError(operation, key, reason)
    return StoreUnavailableError(operation, key, _line(text))


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return next((group for group in match.groups() if group), "") if match else ""


def _line(text: str) -> str:
    """The first line, cut, without what follows the summary."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 200 else line[:200] + "…"
