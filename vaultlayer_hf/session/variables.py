"""Environment variables that no setting reads, and that look much like one that is read. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from vaultlayer_hf.session.settings import settings_table

_PREFIX = "VAULTLAYER_"
_OTHERS = (
    "VAULTLAYER_VERBOSITY",
    "VAULTLAYER_SIGNING_KEY",
    "VAULTLAYER_VERIFY_KEY",
    "VAULTLAYER_ENCRYPTION_KEY",
    "VAULTLAYER_RUN_DIR",
)
"""What people set besides the settings."""
_INTERNAL = ("VAULTLAYER_RUN_", "VAULTLAYER_TEST_", "VAULTLAYER_AZURE_")
"""What `vl run` and the tests pass on."""
_LIKE = 0.8
"""How alike two names are, from 0 to 1, of which one is taken for a misspelling of the other."""


def misspelt_variables(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each variable that is set in vain, with the one that may have been meant.

    misspelt_variables(["VAULTLAYER_KEEPLAST"])  # [("VAULTLAYER_KEEPLAST", "VAULTLAYER_KEEP_LAST")]
    """
    known = [*_OTHERS, *(variable for variable, _ in settings_table())]
    found = []
    for name in sorted(names):
        upper = name.upper()
        if name in known or not upper.startswith("VAULT") or upper.startswith(_INTERNAL):
            continue
        near = difflib.get_close_matches(upper, known, n=1, cutoff=_LIKE)
        if near and (upper.startswith(_PREFIX) or near[0].replace("_", "") == upper.replace("_", "")):
            found.append((name, near[0]))
    return found
