"""Options and variables that don't exist, each with the one that may have been meant. Pure.

A misspelt option would be left out in silence, and with it what it was to keep. So it ends a start, wherever it is
named: in code, in a variable of the environment, in the configuration of a project.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from vaultlayer_hf.errors import SettingsError

PREFIX = "VAULTLAYER_"
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
_LIKE = 0.82
"""How alike two names are behind the prefix, from 0 to 1, of which one is taken for a misspelling of the other."""


def no_such(kind: str, names: Iterable[str], known: Sequence[str]) -> str:
    """Return the sentence that there is no option, or variable, of these names, with those that may have been meant.

    >>> no_such("option", ["keep_lats"], ["keep_last", "keep_best"])
    'there is no option keep_lats: did you mean keep_last?'
    >>> no_such("option", ["colour"], ["keep_last", "keep_best"])
    'there is no option colour; there are keep_last, keep_best'
    """
    names = sorted(names)
    near = {name: difflib.get_close_matches(name, known, n=1) for name in names}
    meant = list(dict.fromkeys(one for found in near.values() for one in found))
    said = f"there is no {kind} {', '.join(names)}"
    if not all(near.values()):
        return f"{said}; there are {', '.join(known)}"
    return f"{said}: did you mean {', '.join(meant)}?"


def misspelt_variables(names: Iterable[str], options: Collection[str]) -> list[str]:
    """Return the variables that are set in vain, and look much like one that is read.

    Args:
        names: of variables of the environment.
        options: of the settings, each of which has its variable.

    >>> misspelt_variables(["VAULTLAYER_KEEPLAST", "VAULTLAYER_MY_OWN"], ["keep_last"])
    ['VAULTLAYER_KEEPLAST']
    """
    known = variables_of(options)
    found = []
    for name in sorted(names):
        upper = name.upper()
        if name in known or not upper.startswith("VAULT") or upper.startswith(_INTERNAL):
            continue
        bare = [one.removeprefix(PREFIX) for one in known]
        like = difflib.get_close_matches(upper.removeprefix(PREFIX), bare, n=1, cutoff=_LIKE)
        same = any(one.replace("_", "") == upper.replace("_", "") for one in known)
        if same or (like and upper.startswith(PREFIX)):
            found.append(name)
    return found


def check_variables(names: Iterable[str], options: Collection[str]) -> None:
    """Raise SettingsError where a variable is misspelt. The arguments are those of ``misspelt_variables``."""
    if misspelt := misspelt_variables(names, options):
        raise SettingsError(no_such("variable", misspelt, variables_of(options)))


def variables_of(options: Iterable[str]) -> list[str]:
    """Return the variables that people may set: those of the settings first."""
    return [*(PREFIX + name.upper() for name in options), *_OTHERS]
