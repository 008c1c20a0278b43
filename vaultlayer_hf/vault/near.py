"""The vault that may have been meant: a mistyped name is answered with what lies near it."""

from __future__ import annotations

import difflib
from pathlib import Path

from vaultlayer_hf.stores.uri import VaultAddress

_DEEP = 3
"""How far below a vault's own folder anything of it lies: ``data/<token>/checkpoint-500``."""


def near_vault(address: VaultAddress) -> Path | None:
    """Return the vault that a folder which is none lies in, holds alone, or has a name much like; None: no such."""
    if address.scheme != "file":
        return None
    path = Path(address.path)
    around = next(
        (one for one in path.parents[:_DEEP] if (one / "log").is_dir() and (one / "data").is_dir()), None
    )
    if around is not None:
        return around
    try:
        within = [one for one in path.iterdir() if (one / "log").is_dir() and (one / "data").is_dir()]
    except OSError:
        within = []
    if len(within) == 1:
        return within[0]
    try:
        others = [one.name for one in path.parent.iterdir() if (one / "log").is_dir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, others, n=1)
    return path.parent / near[0] if near else None
