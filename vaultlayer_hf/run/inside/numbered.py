"""Which vault a Trainer of a script that knows of none gets: ``VAULT``, ``VAULT-2`` and so on, by its output folder.

By the order of a process's trainings alone a script that skips a stage which is done would hand the next stage the
vault of the first. So each claim notes the ``output_dir`` (``session_for``), and the vault whose newest claim notes
this Trainer's is its own. Where none does, it has the first one that may be its own: one that isn't there yet, one that
an earlier release has claimed, or one whose run goes on, since a script may name its folder anew at each start. A run
that is over in another folder is another stage's.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import ObjectNotFoundError, VaultUnreachableError
from vaultlayer_hf.session.access import Access
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.trainer.terms import OUTPUT_DIR

_ANEW = re.compile(
    r"\d{4,}([-_.:T]*\d+)*|[A-Z][a-z]{2}\d{2}_\d{2}-\d{2}-\d{2}|(?<![0-9a-z])[0-9a-f]{8,}(?![0-9a-z])"
)
"""What a script makes anew at each start: dates and times, numbers of processes and jobs, random hexadecimal digits."""


@dataclass(frozen=True)
class Stage:
    """What is known of a vault that a training of this script may have.

    Attributes:
        folder: the output folder that its newest claim notes; None where it notes none, as of earlier releases.
        over: whether its run is over.
    """

    folder: str | None
    over: bool


def pick_number(
    folder: str, used: Collection[int], look: Callable[[int], Stage | None], there: Callable[[str], bool]
) -> int:
    """Return the number of the vault for a training that writes into ``folder``. Pure, but for what it asks.

    Args:
        folder: as a claim notes it.
        used: numbers that trainings of this process have.
        look: at the vault of a number; None where there is none.
        there: whether a folder is on this machine.
    """
    may_be: int | None = None
    for number in count(1):
        if number in used:
            continue
        stage = look(number)
        if stage is None:
            return number if may_be is None else may_be
        if stage.folder is not None and same_folder(stage.folder, folder, there):
            return number
        if may_be is None and (stage.folder is None or not stage.over):
            may_be = number
    raise AssertionError  # numbers have no end


def same_folder(noted: str, folder: str, there: Callable[[str], bool]) -> bool:
    """Tell whether two starts of one training write into these folders.

    Names that a script makes anew at each start are alike. A whole path that isn't on this machine was another one's,
    and is compared by its last part.
    """
    if _lasting(noted) == _lasting(folder):
        return True
    moved = os.path.isabs(noted) and os.path.isabs(folder) and not there(noted)
    return moved and _lasting(os.path.basename(noted)) == _lasting(os.path.basename(folder))


def _lasting(folder: str) -> str:
    """Return what of a path is the same at each start."""
    if Path(folder).is_relative_to(tempfile.gettempdir()):
        parts = [re.sub(r"tmp[a-z0-9_]{8}", "tmp", part) for part in Path(folder).parts]
        folder = os.path.join(*parts)
    return _ANEW.sub("#", folder)


def stage_of(settings: Settings, number: int) -> Stage | None:
    """Look at the vault of a number; None where there is none. Raises VaultUnreachableError, CorruptError."""
    access = Access(numbered(settings, number), Events(), create=False)
    try:
        _, entry = access.last()
    except VaultUnreachableError as error:
        if isinstance(error.__cause__, ObjectNotFoundError):
            return None
        raise
    if entry is None:
        return None
    claim = entry if entry.number == entry.state.token else access.log().read(entry.state.token)
    folder = claim.detail.get(OUTPUT_DIR)
    return Stage(folder if isinstance(folder, str) else None, entry.state.finished is not None)


def numbered(settings: Settings, number: int) -> Settings:
    """Return settings for the vault of a number; only the first training is a fork of what the settings name."""
    if number == 1:
        return settings
    return replace(settings, vault=f"{parse_vault(settings.vault or '').uri}-{number}", fork=None)
