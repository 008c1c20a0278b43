"""Which vault a Trainer of a script that knows of none gets: ``VAULT``, ``VAULT-2`` and so on, by its output folder.

By the order of a process's trainings alone a script that skips a stage which is done would hand the next stage the
vault of the first. So each claim notes the ``output_dir`` (``session_for``), and the vault whose newest claim notes
this Trainer's is its own. Where none does, it has the first one that may be its own: one whose run goes on, since a
script may name its folder anew at each start, one that an earlier release has claimed, or one that isn't there yet. A
run that is over in another folder is another stage's.
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
    r"(?<![\d.])(?:\d{6,}|\d{4}[-_.]\d{2}[-_.]\d{2})(?:[-_.:T]*\d+)*"
    r"|[A-Z][a-z]{2}\d{2}_\d{2}-\d{2}-\d{2}|(?<![0-9a-z])(?=[0-9a-f]*[a-f])[0-9a-f]{8,}(?![0-9a-z])"
)
"""What a script makes anew at each start: dates and times, numbers of jobs, random hexadecimal digits."""


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
) -> tuple[int, str | None]:
    """Return the number of the vault for a training that writes into ``folder``. Pure, but for what it asks.

    Beside it the folder that its newest claim notes, where that may be another training's; else None.

    Args:
        folder: as a claim notes it.
        used: numbers that trainings of this process have.
        look: at the vault of a number; None where there is none.
        there: whether a folder is on this machine.
    """
    found: dict[int, Stage] = {}
    for number in count(1):
        stage = look(number) if number not in used else None
        if stage is not None:
            found[number] = stage
        elif number not in used:
            break
    own = [one for one, stage in found.items() if stage.folder == folder]
    own += [one for one, stage in found.items() if _has_moved(stage.folder, folder, there)]
    # That two names differ in what looks like a date says little: a run that is over may be another one's.
    under_way = {one: stage for one, stage in found.items() if not stage.over}
    own += [
        one for one, stage in under_way.items() if stage.folder and _lasting(stage.folder) == _lasting(folder)
    ]
    if own:
        return own[0], None
    for one, stage in found.items():
        if stage.folder is None or not stage.over:
            return one, stage.folder
    return number, None


def _has_moved(noted: str | None, folder: str, there: Callable[[str], bool]) -> bool:
    """Tell whether a whole path that isn't on this machine was another one's for this folder, as its last part says."""
    whole = noted is not None and os.path.isabs(noted) and os.path.isabs(folder)
    return whole and not there(str(noted)) and os.path.basename(str(noted)) == os.path.basename(folder)


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
