"""The vault that may have been meant: a mistyped name is answered with what lies near it."""

from __future__ import annotations

import difflib
from pathlib import Path

from vaultlayer_hf.stores.uri import VaultAddress


def near_vault(address: VaultAddress) -> Path | None:
    """Return a vault beside a folder that is none, whose name is much like it; None where there is none such."""
    if address.scheme != "file":
        return None
    path = Path(address.path)
    try:
        others = [one.name for one in path.parent.iterdir() if (one / "log").is_dir()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, others, n=1)
    return path.parent / near[0] if near else None
