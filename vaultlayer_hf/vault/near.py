"""The vault that may have been meant: a mistyped name is answered with what lies near it."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from vaultlayer_hf.errors import StoreError, VaultLayerError
from vaultlayer_hf.stores import open_store
from vaultlayer_hf.stores.base import Store, WrappedStore
from vaultlayer_hf.stores.kinds import KINDS
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.vault.keys import LOG, entry_number

_DEEP = 3
"""How far below a vault's own folder anything of it lies: ``data/<token>/checkpoint-500``."""
_LIKELY = 3
"""Names in a bucket, the nearest ones, of which is asked whether they are vaults."""
_FEW = 8
"""Folders below the place that was named, up to which each is asked: of more, none is the one that was meant."""
_LONG = 4
"""Letters of a word from which on one that is wrong is taken for a slip, and not for another word."""
_PATIENCE = 5.0
"""Seconds for which a bucket is looked through: a person waits, and it may hold anything."""


def near_vault(address: VaultAddress) -> str | None:
    """Return the vault that a place which is none lies in, holds alone, or has a name much like; None: no such.

    In a bucket only where this process may list what lies beside it.
    """
    if address.scheme == "file":
        found = _near_folder(Path(address.path))
        return None if found is None else str(found)
    if address.scheme not in KINDS:  # another author's store: nothing is known of its other addresses
        return None
    answers: list[str] = []
    looking = threading.Thread(target=_look, args=(address, answers), name="vl-near", daemon=True)
    looking.start()
    looking.join(_PATIENCE)
    return next(iter(answers), None)


def vaults_within(address: VaultAddress) -> list[str]:
    """Return the names of the vaults that lie in a folder; empty for a place of another kind."""
    return [one.name for one in _folders_within(Path(address.path))] if address.scheme == "file" else []


def is_slip(name: str, other: str) -> bool:
    """Tell whether one name is most likely the other one, mistyped.

    One word of at least four letters differs by one letter that is another, left out, too many, or has changed places
    with its neighbour. Names that are told apart on purpose differ in more, in a short word or in digits: ``run-a`` and
    ``run-b``, ``fold-0`` and ``fold-1``.
    """
    ours, theirs = re.split(r"[^A-Za-z]+", name), re.split(r"[^A-Za-z]+", other)
    if len(ours) != len(theirs) or re.sub(r"[A-Za-z]", "", name) != re.sub(r"[A-Za-z]", "", other):
        return False
    pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    if len(pairs) != 1 or max(map(len, pairs[0])) < _LONG:
        return False
    short, long = sorted(pairs[0], key=len)
    if len(short) < len(long):
        return short in (long[:at] + long[at + 1 :] for at in range(len(long)))
    places = [at for at in range(len(short)) if short[at] != long[at]]
    first, last = places[0], places[-1]
    return first == last or (last == first + 1 and short[first : last + 1] == long[last] + long[first])


def _near_folder(path: Path) -> Path | None:
    around = next(
        (one for one in path.parents[:_DEEP] if (one / "log").is_dir() and (one / "data").is_dir()), None
    )
    if around is not None:
        return around
    if len(within := _folders_within(path)) == 1:
        return within[0]
    try:
        others = [one.name for one in path.parent.iterdir() if one != path and (one / "log").is_dir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, others, n=1)
    return path.parent / near[0] if near else None


def _folders_within(path: Path) -> list[Path]:
    try:
        return sorted(one for one in path.iterdir() if (one / "log").is_dir() and (one / "data").is_dir())
    except OSError:
        return []


def _look(address: VaultAddress, answers: list[str]) -> None:
    try:
        store = open_store(_at(address, ""), create=False)
        while isinstance(store, WrappedStore):  # a vault's names aren't encrypted
            store = store.inner
        answers += [_at(address, one).uri for one in islice(_near_prefixes(store, address.prefix), 1)]
    except VaultLayerError:  # nothing can be said of what lies beside it
        return


def _near_prefixes(store: Store, prefix: str) -> Iterator[str]:
    """Yield the prefixes of vaults that may have been meant, the likeliest first; ``store`` is the whole bucket's."""
    parts = prefix.split("/") if prefix else []
    around = [
        "/".join(parts[:length]) for length in range(len(parts) - 1, max(-1, len(parts) - 1 - _DEEP), -1)
    ]
    yield from (one for one in around if _is_vault(store, one))
    below = _folders(store, prefix)
    within = [one for one in below if _is_vault(store, one)] if len(below) <= _FEW else []
    if len(within) == 1:
        yield within[0]
    if parts:
        beside = {
            one.rpartition("/")[2]: one for one in _folders(store, "/".join(parts[:-1])) if one != prefix
        }
        near = difflib.get_close_matches(parts[-1], list(beside), n=_LIKELY)
        yield from (beside[name] for name in near if _is_vault(store, beside[name]))


def _folders(store: Store, prefix: str) -> list[str]:
    try:
        return [f"{prefix}/{name}" if prefix else name for name in store.folders(prefix)]
    except StoreError:  # who may read one vault need not be let in beside it
        return []


def _is_vault(store: Store, prefix: str) -> bool:
    start = f"{prefix}/" if prefix else ""
    try:
        return any(entry_number(info.key.removeprefix(start)) for info in store.list(start + LOG))
    except StoreError:
        return False


def _at(address: VaultAddress, prefix: str) -> VaultAddress:
    uri = f"{address.scheme}://{address.bucket}" + (f"/{prefix}" if prefix else "")
    return replace(address, uri=uri, prefix=prefix, step=None, best=False)
