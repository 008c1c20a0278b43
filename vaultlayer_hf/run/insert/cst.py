"""libcst, which is an extra: imported where something of it is first asked for, as ``cst.Call``."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.errors import MissingExtraError


def __getattr__(name: str) -> Any:
    """Return what libcst has by this name. Raises MissingExtraError without libcst."""
    try:
        import libcst
    except ImportError as error:
        raise MissingExtraError(
            "editing a script needs libcst: install the extra, pip install 'vaultlayer-hf[init]'"
        ) from error
    found = globals()[name] = getattr(libcst, name)  # from now on it is found without this function
    return found
