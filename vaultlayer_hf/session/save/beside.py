"""What a script writes into its output folder beside the checkpoints: none of these holds it, so a new disk lacks it.

A callback's best model, a table of its metrics. Each save notes the names, and a start that goes on from it says which
of them aren't there, once the script has had its chance to write them again: at the first step.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.vault.snapshot import LOCAL

_LOOKED_AT, _KEPT, _SHOWN = 256, 64, 3
"""Entries of the folder that are looked at, since a save waits for it; names that are kept; names in a message."""
_NOT_THE_SCRIPTS = ("checkpoint-", "tmp-checkpoint-", ".", LOCAL)
"""How names of checkpoints begin, and of what is hidden or ours."""
_MODEL_CARD = "README.md"
"""What TRL and PEFT write beside their checkpoints, at each save anew: a person's script has no part in it."""


def names_beside(folder: Path) -> list[str]:
    """Return the names in an output folder that are neither checkpoints nor hidden, some of very many; in order.

    Never raises.
    """
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in itertools.islice(entries, _LOOKED_AT)]
    except OSError:
        return []
    return sorted(filter(_is_scripts, names))[:_KEPT]


def say_what_is_gone(events: Events, checkpoint: str, names: Collection[str], folder: Path) -> None:
    """Say which of the names that a checkpoint has noted aren't in an output folder any more."""
    gone = _gone(names, folder)
    if not gone:
        return
    more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
    events.warn(
        EventKind.NOTICE,
        f"{', '.join(gone[:_SHOWN])}{more}: the script had written these into its output folder by {checkpoint}, and "
        f"{folder} doesn't have them: a vault holds the checkpoints' own folders. What reads them begins without them: "
        "keep them where they outlive this disk, or write them again at each start",
    )


def _gone(names: Collection[str], folder: Path) -> Sequence[str]:
    # Asked once more whose they are: older releases have noted the model card, too.
    noted = [name for name in names if isinstance(name, str) and _is_scripts(name)]
    return [name for name in noted if not os.path.lexists(folder / name)]


def _is_scripts(name: str) -> bool:
    """Tell whether a name in an output folder is one of the script's own."""
    return not name.startswith(_NOT_THE_SCRIPTS) and name != _MODEL_CARD
