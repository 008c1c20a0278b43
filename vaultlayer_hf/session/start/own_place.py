"""A vault begins in a place of its own: never among a person's files, in the root of a bucket, or in ``output_dir``.

A vault's names (``log/``, ``data/1/...``) are common ones. Mixed with other files they could be taken for each other,
by a person who tidies up or by a tool that syncs a folder. So a first start looks at the place and refuses one that
isn't free. A vault that has a log goes on wherever it is: retention deletes only what carries our mark
(retention/prune.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from vaultlayer_hf.errors import VaultUriError
from vaultlayer_hf.stores.base import Store
from vaultlayer_hf.stores.probe import PROBES
from vaultlayer_hf.stores.uri import VaultAddress
from vaultlayer_hf.vault.keys import DATA, HINT, LOG, entry_number, split_folder
from vaultlayer_hf.vault.snapshot import LOCAL

_LOOKED_AT = 1000
"""Objects of an object store that are looked at: one page of a listing. A start must not list all of a big bucket."""
_ONES_OWN = "a vault needs a place of its own"
_ROTATED = "checkpoint-"
"""What the names begin with of folders in ``output_dir`` that the Trainer's ``save_total_limit`` deletes."""
_CHECKPOINT = re.compile(r"checkpoint[-_]\d+")
_SYSTEMS = {"lost+found", "System Volume Information", "Thumbs.db", "desktop.ini"}
"""What a system puts on a disk by itself; names that begin with a dot aren't looked at either."""


def check_place(address: VaultAddress, output_dir: Path, store: Store) -> None:
    """Check the place of a vault that is about to begin. Raises VaultUriError, StoreError."""
    if address.scheme == "file":
        _check_apart(address, output_dir)
    check_free(address, store)
    if address.scheme == "file":
        _check_stays(address, output_dir)


def check_free(address: VaultAddress, store: Store) -> None:
    """Check that nothing but a vault lies in a place. Raises VaultUriError, StoreError."""
    if address.scheme == "file":
        foreign = find_foreign(_files(Path(address.path)))
        if foreign and _CHECKPOINT.fullmatch(os.path.basename(address.path)):
            raise VaultUriError(
                f"{address.uri} is a checkpoint's folder, and {_ONES_OWN}: name a new folder beside output_dir for the "
                "vault, and call train(resume_from_checkpoint=…) with this checkpoint once"
            )
    else:
        if address.bucket and not address.prefix and address.scheme in ("s3", "gs", "az"):
            raise VaultUriError(
                f"{address.uri} is a whole bucket, and {_ONES_OWN}: name a folder in it, such as {address.uri}/my-run"
            )
        foreign = find_foreign(item.key for item in islice(store.list(""), _LOOKED_AT))
    if foreign:
        shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise VaultUriError(
            f"{address.uri} holds other files ({shown}), and {_ONES_OWN}: name a new folder, such as "
            f"{address.uri}/vault"
        )


def _check_apart(address: VaultAddress, output_dir: Path) -> None:
    vault, output = os.path.realpath(address.path), os.path.realpath(output_dir)
    if vault == output or output.startswith(vault.rstrip("/") + "/"):
        where = "is output_dir" if vault == output else f"holds output_dir ({output})"
        beside = f"{output}-vault" if vault == output else os.path.join(vault, "vault")
        raise VaultUriError(
            f"{address.uri} {where}, and {_ONES_OWN}: the Trainer deletes old checkpoints in output_dir. Name another "
            f"folder, such as {beside}, best on another disk or s3://bucket/my-run"
        )


def _check_stays(address: VaultAddress, output_dir: Path) -> None:
    output = os.path.realpath(output_dir)
    within = os.path.relpath(os.path.realpath(address.path), output).split(os.sep)[0]
    if within.startswith(_ROTATED) or within == LOCAL:
        raise VaultUriError(
            f"{address.uri} lies in output_dir under a name that is deleted there ({within}), and {_ONES_OWN}: the "
            f"Trainer takes every folder {_ROTATED}… for an old checkpoint. Name another folder, such as "
            f"{output}-vault, best on another disk or s3://bucket/my-run"
        )


def _files(root: Path) -> Iterable[str]:
    """Yield a key for all that lies at the top of a folder, and below ``log`` and ``data`` as deep as is needed."""
    try:
        tops = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):  # the store says what is wrong with it
        return
    yield from (name for name in tops if f"{name}/" not in (LOG, DATA) or not (root / name).is_dir())
    lower = [*root.glob(f"{LOG}*"), *root.glob(f"{DATA}*/*")]
    lower += [path for path in root.glob(f"{DATA}*") if not path.is_dir()]
    yield from (path.relative_to(root).as_posix() for path in sorted(lower))


def find_foreign(keys: Iterable[str]) -> list[str]:
    """Return the first parts of the keys that no vault has, each once, in their order. Pure."""
    return list(dict.fromkeys(key.partition("/")[0] for key in keys if not _is_a_vaults(key)))


def _is_a_vaults(key: str) -> bool:
    top = key.partition("/")[0]
    if not top or top.startswith(".") or top in _SYSTEMS:
        return True
    if key.startswith(LOG):
        return entry_number(key) is not None or key == LOG
    if key.startswith(DATA):
        folder = split_folder("/".join(key.split("/")[:3]))
        return key == DATA or (folder is not None and folder[1].startswith("checkpoint-"))
    return key == HINT or f"{top}/" == PROBES
