"""Vault addresses: what a user may write for ``resume=``, and the clear error for what can't be meant.

    s3://bucket/prefix      an S3 bucket, or a part of it
    gs://bucket/prefix      a bucket of Google Cloud Storage, or a part of it
    hf://buckets/namespace/name/prefix
                            a bucket of Hugging Face, or a part of it
    hf://namespace/repository/prefix
                            a model repository of the Hugging Face Hub, or a part of it
    az://account/container/prefix
                            a container of Azure Blob Storage, or a part of it; the same as
                            abfss://container@account.dfs.core.windows.net/prefix
    file:///folder          a folder; %XX is decoded
    /folder  folder  ~/x    a folder, taken as it is written
    ADDRESS@500             the checkpoint of step 500 of that vault
    ADDRESS@best            the checkpoint that its Trainer names as the best so far
    ADDRESS@latest          the newest, as without it

Any other word, or an ill-written number, behind an ``@`` at the end (``@lastest``, ``@ 40``) is refused: taken for a
part of the name, it would begin a new run in a new vault; ``run@v2`` is a name. A folder that exists under the very
name ``run@500`` or ``run@latest`` is that folder; its step 7 is ``run@500@7``.
Nothing is opened here; the one look at the disk is whether such a folder exists.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from vaultlayer_hf.errors import VaultUriError
from vaultlayer_hf.stores.kinds import KINDS, Kind, kind_of, of_hadoop
from vaultlayer_hf.stores.mistaken import (
    FORMS,
    check_path,
    check_prefix,
    check_replaced,
    escaped,
    of_provider,
    secretive,
    shown,
    wrong_scheme,
)
from vaultlayer_hf.stores.others import store_of

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(/*)(.*)", re.DOTALL)
_STEP = re.compile(r"(.*)@([0-9]+)/?", re.DOTALL)
_WORD = re.compile(r"(.*[^/])@(latest|best)/?", re.DOTALL)
_NEAR = {"newest": "latest", "last": "latest", "lowest": "best"}
"""What people may mean by other words."""
_NO_STEP = re.compile(r".*[^/]@ *([A-Za-z]+|[-+]?[0-9]*) */?", re.DOTALL)  # meant as a step, and none


@dataclass(frozen=True, slots=True)
class VaultAddress:
    """A parsed vault URI.

    Attributes:
        uri: canonical, without the step and without a trailing slash; parsing it again gives this address
            without its step.
        scheme: ``"file"``, ``"s3"`` or another of ``kinds.KINDS``, or one of another author's store.
        bucket: what holds the objects: a bucket, with ``az`` account and container, with ``hf`` all of
            ``buckets/namespace/name``, or ``namespace/repository``; ``""`` for a folder.
        prefix: what the keys begin with, without slashes around it, ``""`` for the whole bucket or a folder.
        path: the absolute path of a folder; ``""`` for an object store.
        step: the step asked for, or None for the newest checkpoint.
        best: the best checkpoint is asked for; ``step`` is None then.
    """

    uri: str
    scheme: str
    bucket: str
    prefix: str
    path: str
    step: int | None
    best: bool = False

    def __str__(self) -> str:
        return f"{self.uri}@{self.named}" if self.named else self.uri

    @property
    def named(self) -> str:
        """What stands behind the ``@``: a step or ``best``; empty where the newest checkpoint is meant."""
        return "best" if self.best else "" if self.step is None else str(self.step)


def parse_vault(text: str | os.PathLike[str]) -> VaultAddress:
    """Parse what a user wrote for a vault.

    Args:
        text: a URI or a path, with or without ``@<step>``. An ``os.PathLike`` is a folder as it stands,
            never a URI and never with a step.

    Raises:
        VaultUriError: it can't be used; the message names one fix, and never repeats a secret.
    """
    if isinstance(text, os.PathLike):
        return _folder(os.fspath(text))
    if not isinstance(text, str):
        raise VaultUriError(f"a vault is a string or a path, not {type(text).__name__}; {FORMS}")
    text = text.strip()
    if not text:
        raise VaultUriError(f"the vault URI is empty; {FORMS}")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise VaultUriError(f"the vault URI has a line break or control character in it; {FORMS}")
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _plain(text)
    scheme, slashes, rest = match.groups()
    if scheme in ("abfss", "abfs") and slashes == "//":
        in_azure = of_hadoop(_without_end(rest))
        if in_azure is None:
            raise VaultUriError(
                f"{shown(text)} is no vault URI; write {scheme}://container@account.dfs.core.windows.net/prefix"
                " or az://account/container/prefix"
            )
        scheme, rest = "az", in_azure + rest[len(_without_end(rest)) :]
    if scheme in KINDS and slashes == "//":
        return _in_bucket(kind_of(scheme, rest), rest)
    if scheme == "file" and slashes == "///":
        return _file(rest)
    if slashes and store_of(scheme) is not None:
        return _of_other(scheme, slashes, rest)
    raise wrong_scheme(text, scheme, slashes, rest)


def _of_other(scheme: str, slashes: str, rest: str) -> VaultAddress:
    """Parse an address for a store of another author, which itself knows what stands behind the slashes."""
    whole = f"{scheme}:{slashes}{rest}"
    before = _without_end(whole).rstrip("/")
    if secretive(before.partition(":")[2]):
        raise VaultUriError(
            f"a {scheme}:// vault's address holds no credentials, port or ?options: the log shows it"
        )
    if _NO_STEP.fullmatch(before):
        raise _no_step(before)
    step, best = _end_of(whole)
    return VaultAddress(before, scheme, "", before.partition(":")[2].lstrip("/"), "", step, best)


def _in_bucket(kind: Kind, rest: str) -> VaultAddress:
    named, rest = rest, _without_end(rest)
    step, best = _end_of(named)
    count = len(kind.place)
    parts = rest.split("/", count)
    prefix = parts[count] if len(parts) > count else ""
    parts = [*parts, *[""] * count][:count]
    if (mistaken := of_provider(kind, rest)) is not None:
        raise mistaken
    if any("@" in part or ":" in part for part in parts):
        raise VaultUriError(
            f"the vault URI carries credentials or a port before the {kind.place[-1]}; write {kind.form}, with"
            f" {kind.credentials}"
        )
    if "?" in rest or "#" in rest:
        raise VaultUriError(
            f"a vault URI takes no ?options or #fragment; write {kind.form} and set {kind.options}"
        )
    whole = f"{kind.scheme}://{rest}"
    if kind.first and parts[0] != kind.first:
        raise VaultUriError(f"the vault URI {shown(whole)} is no bucket's; write {kind.form}")
    for name, part in zip(kind.place, parts, strict=True):
        if not part:
            left = "/".join(filter(None, rest.split("/")))
            meant = left.count("/") >= count - 1 and left
            fix = f"did you mean {kind.scheme}://{left}?" if meant else f"write {kind.form}"
            raise VaultUriError(f"the vault URI {shown(whole)} names no {name}; {fix}")
        if not kind.part.fullmatch(part):
            raise VaultUriError(f"{part!r} is no name of {_a(name)}; write {kind.form}")
    prefix = prefix.rstrip("/")
    bucket = "/".join(parts)
    check_prefix(kind, bucket, prefix)
    if rest != named and (_STEP.fullmatch(prefix) or _WORD.fullmatch(prefix)):
        raise VaultUriError(f"the vault URI ends in two steps; write {kind.form}@step, with one")
    if _NO_STEP.fullmatch(prefix) and not _STEP.fullmatch(prefix):
        raise _no_step(prefix)
    below = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in below) or "\\" in prefix:
        clean = "/".join(
            [*parts, *(part for part in re.split(r"[/\\]", prefix) if part not in ("", ".", ".."))]
        )
        raise VaultUriError(
            f"the vault URI {shown(whole)} has an empty, '.' or '..' part or a backslash;"
            f" did you mean {kind.scheme}://{clean}?"
        )
    uri = f"{kind.scheme}://{bucket}/{prefix}" if prefix else f"{kind.scheme}://{bucket}"
    return VaultAddress(uri, kind.scheme, bucket, prefix, "", step, best)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _file(rest: str) -> VaultAddress:
    whole = "/" + unquote(rest)
    if os.path.isdir(whole):
        return _folder(whole)
    check_replaced(rest)
    before = _without_end(rest)
    if before == rest and _NO_STEP.fullmatch(rest.replace("%20", " ")):
        raise _no_step(rest)
    return _folder("/" + unquote(before), *_end_of(rest))


def _plain(text: str) -> VaultAddress:
    if os.path.isdir(os.path.expanduser(text)):
        return _folder(text)
    check_path(text)
    before = _without_end(text)
    if before == text and _NO_STEP.fullmatch(text):
        raise _no_step(text)
    return _folder(before, *_end_of(text))


def _without_end(text: str) -> str:
    """Return an address without ``@500``, ``@best`` or ``@latest`` at its end."""
    match = _STEP.fullmatch(text) or _WORD.fullmatch(text)
    return match.group(1) if match is not None else text


def _end_of(text: str) -> tuple[int | None, bool]:
    """Return the step that the end of an address names, and whether it names the best checkpoint."""
    match, word = _STEP.fullmatch(text), _WORD.fullmatch(text)
    return int(match.group(2)) if match is not None else None, word is not None and word.group(2) == "best"


def _folder(text: str, step: int | None = None, best: bool = False) -> VaultAddress:
    path = os.path.abspath(os.path.expanduser(text))
    if path.startswith("//"):  # POSIX lets exactly two slashes mean something else; here they don't
        path = path[1:]
    if path == "/":
        raise VaultUriError(
            "the root of the file system can't be a vault; name a folder, such as /data/my-run"
        )
    return VaultAddress("file://" + _quoted(path), "file", "", "", path, step, best)


def _quoted(path: str) -> str:
    """Escape only what parsing would take for something else, so that messages stay readable."""
    path = escaped(path.replace("%", "%25"))
    if not _STEP.fullmatch(path) and not _NO_STEP.fullmatch(path):
        return path
    before, _, after = path.rpartition("@")
    return f"{before}%40{after}"


_BEHIND = (
    "write ADDRESS@500 for the checkpoint of step 500, @best for the best, ADDRESS alone for the newest, and a new "
    "vault's name without an @"
)


def _no_step(text: str) -> VaultUriError:
    """The error for an ``@`` with no step behind it; what is behind it is repeated only where it can't be a key."""
    behind = text.rstrip("/").rpartition("@")[2]
    after = behind.strip()
    if not after:
        return VaultUriError(f"the vault URI ends in an @ with nothing after it: {_BEHIND}")
    if behind != after and (after.isdigit() or after in ("latest", "best")):
        return VaultUriError(f"the vault URI has a blank after its last @: did you mean @{after}?")
    shown = f"@{after}" if re.fullmatch(r"[A-Za-z0-9]{0,10}", after) else "what is after its last @"
    near = _NEAR.get(after.lower()) or next(
        iter(difflib.get_close_matches(after.lower(), ["latest", "best", *_NEAR])), None
    )
    near = _NEAR.get(str(near), near)
    if near is not None:
        return VaultUriError(
            f"the vault URI ends in {shown}: did you mean @{near}? What follows an @ is a step, latest or best"
        )
    return VaultUriError(f"the vault URI ends in {shown}, which is no step: {_BEHIND}")
