"""What can't be meant by a vault's address, and the one that may have been: pure, and never with a secret in it.

Whatever isn't recognised as an address would be the name of a new folder on this machine: a run would go well there,
and be lost with the machine. So a text that nobody calls a folder is refused, unless such a folder exists.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata

from vaultlayer_hf.errors import VaultUriError
from vaultlayer_hf.stores.kinds import COMPATIBLE, KINDS, MEANT, REPOSITORY, Kind, of_web_page

FORMS = f"use {', '.join(kind.form for kind in (*KINDS.values(), REPOSITORY))}, file:///folder or a path"
_ELSEWHERE = {"hdfs", "ftp", "sftp", "dbfs", "memory"}
_UNREPLACED = re.compile(r"\$[{(]?[A-Za-z_]\w*[})]?|\{\{?\s*[A-Za-z_][\w.]*\s*\}?\}|<[A-Za-z][\w \-]*>")
"""A variable of a shell, a place in a template: what somebody meant to have been replaced by a value."""
_NOTHING = {"none", "null", "nil", "nan", "undefined", "true", "false"}
"""What a program writes where it has no text."""
_SCHEME_LIKE = re.compile(rf"({'|'.join(KINDS)})\W{{0,3}}?(?:/{{2,}}|\\+)(.*)", re.IGNORECASE | re.DOTALL)
_LONGEST = 768
"""Bytes of a prefix, at most: stores take 1024 for a whole key, and a vault needs the rest for its own names."""
_SLASHES = re.compile(r"[/\\]+")
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def check_path(text: str) -> None:
    """Raise VaultUriError for a text without a scheme that nobody means as the name of a new folder."""
    if text.lower() in _NOTHING:
        raise VaultUriError(f"{text!r} is no vault: a variable or setting holds no address; {FORMS}")
    bare = text.strip("'\"`\ufeff\u200b ")
    typo = _SCHEME_LIKE.fullmatch(bare)
    if typo is not None:
        raise VaultUriError(
            f"{shown(text)} is no vault URI; did you mean {meant(f'{typo[1].lower()}://{typo[2]}')}?"
        )
    if "://" in text:
        scheme, _, rest = bare.partition("://")
        name = re.sub(r"\W", "", scheme.lower())
        near = next(iter(difflib.get_close_matches(name, [*KINDS, "file"], n=1, cutoff=0.5)), "")
        fix = f"did you mean {meant(f'{near}://{rest}')}?" if near else FORMS
        raise VaultUriError(f"{shown(text)} is no vault URI; {fix}")
    if bare != text:
        raise VaultUriError(f"{shown(text)} has quotation marks around it; did you mean {bare}?")
    check_replaced(text)
    if text.startswith("~") and os.path.expanduser(text) == text:
        raise VaultUriError(f"{shown(text)}: there is no user of this name on this machine")
    if os.sep == "/" and "\\" in text:
        fix = (
            f"did you mean {re.sub(chr(92) * 2 + '+', '/', text)}?" if not text.startswith("\\\\") else FORMS
        )
        raise VaultUriError(f"{shown(text)} is a path of Windows; {fix}")


def check_replaced(text: str) -> None:
    """Raise VaultUriError where a variable or a place in a template stands for itself."""
    found = _UNREPLACED.search(text)
    if found is not None:
        what = "a variable" if secretive(text) else found[0]
        raise VaultUriError(
            f"the vault URI holds {what}, which nothing has replaced by its value: write the value, or have the shell"
            " or the program put it there"
        )


def escaped(path: str) -> str:
    """Return a path in which nothing is taken for a variable when it is parsed as what stands behind ``file://``."""
    return _UNREPLACED.sub(lambda found: f"%{ord(found[0][0]):02X}{found[0][1:]}", path)


def of_provider(kind: Kind, rest: str) -> VaultUriError | None:
    """Return the error where the host name of a provider, an ARN or a revision stands in the place of a bucket."""
    if rest.startswith("arn:"):
        return VaultUriError(
            f"an ARN is no {kind.place[-1]}; of an access point write its alias: {kind.scheme}://ALIAS-s3alias/prefix"
        )
    first = rest.lstrip("/").split("/")
    if kind.scheme == "hf" and len(first) > 1 and "@" in first[1] and ":" not in rest.partition("@")[0]:
        return VaultUriError(f"a vault's address names no revision; write {kind.form}")
    if "@" in rest or "?" in rest or (page := of_web_page(rest)) is None:
        return None
    return VaultUriError(
        f"{kind.scheme}://{rest} names a server in the place of the {kind.place[0]}; did you mean {page}?"
    )


def check_prefix(kind: Kind, bucket: str, prefix: str) -> None:
    """Raise VaultUriError where no key can begin so, or none that a person would find again."""
    check_replaced(prefix)
    if any(unicodedata.category(character) in _INVISIBLE for character in prefix):
        raise VaultUriError(
            f"the vault URI has a character in it that can't be seen; type its end again: {kind.form}"
        )
    clean = "/".join(part.strip() for part in prefix.split("/"))
    if clean != prefix:
        raise VaultUriError(
            f"the vault URI has a space beside a slash or at its end; did you mean {meant(f'{kind.scheme}://{bucket}/{clean}')}?"
        )
    size = len(prefix.encode())
    if size > _LONGEST:
        raise VaultUriError(
            f"the vault URI's prefix has {size} bytes, more than the {_LONGEST} that leave room for a vault's own"
            " names: shorten it"
        )


def wrong_scheme(text: str, scheme: str, slashes: str, rest: str) -> VaultUriError:
    """Return the error for a text with a scheme that no store has, or has written otherwise."""
    name, said = scheme.lower(), shown(text)
    if len(name) == 1:  # of a drive
        return VaultUriError(
            f"{said} is a path of Windows: name a folder of this system (WSL: /mnt/{name}/…)"
        )
    if name in ("http", "https"):
        return _web_address(said, scheme, rest)
    if name == "arn":
        return VaultUriError(
            f"an ARN is no vault URI; did you mean {meant('s3://' + rest.rpartition(':')[2])}?"
        )
    if name == "file":
        return VaultUriError(f"{said} is no vault URI; did you mean {meant('file:///' + rest)}?")
    if name in COMPATIBLE:
        return VaultUriError(
            f"{said} is no vault URI; did you mean {meant(f's3://{rest}')}, with the server in AWS_ENDPOINT_URL?"
        )
    near = MEANT.get(name, name)
    if near not in KINDS and name not in _ELSEWHERE and slashes:
        near = next(iter(difflib.get_close_matches(name, KINDS, n=1, cutoff=0.5)), near)
    if near in KINDS:
        return VaultUriError(f"{said} is no vault URI; did you mean {meant(f'{near}://{rest}')}?")
    if len(slashes) < 2:
        return VaultUriError(f"{said} is no vault URI; {FORMS} (./ before a folder with a colon in its name)")
    return VaultUriError(f"vaults of kind {scheme}:// are not supported; {FORMS}")


def _web_address(said: str, scheme: str, rest: str) -> VaultUriError:
    if not set("@?#") & set(rest):
        if (page := of_web_page(rest)) is not None:
            return VaultUriError(f"{said} is a web address; did you mean {page}?")
        host, _, path = rest.partition("/")
        if host and path.strip("/"):
            vault = f"s3://{path.strip('/')}"
            return VaultUriError(
                f"a web address is no vault; did you mean {vault}, with AWS_ENDPOINT_URL={scheme.lower()}://{host}?"
            )
    return VaultUriError(
        "a web address is no vault; write s3://bucket/prefix and name the server in AWS_ENDPOINT_URL"
    )


def secretive(text: str) -> bool:
    """Whether a text may hold a key: user:password@host, ?signature=."""
    return any(mark in text.partition(":")[2] for mark in "@?:") or "@" in text or "?" in text


def shown(text: str) -> str:
    """The text for a message; anything that may hold a key is left out."""
    if secretive(text):
        return "what was given (not repeated here: it may hold a key)"
    return text if len(text) <= 200 else text[:200] + "…"


def meant(uri: str) -> str:
    """A corrected URI for a message, or the general form where it may hold a key."""
    scheme, _, rest = uri.partition("://")
    if secretive(uri):
        return KINDS.get(scheme, KINDS["s3"]).form
    return uri if scheme == "file" else f"{scheme}://{_SLASHES.sub('/', rest).lstrip('/')}"
