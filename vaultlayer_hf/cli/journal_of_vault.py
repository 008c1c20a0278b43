"""Finds the run folder of a vault that was named: the journal of `vl run` knows of steps, and the vault of commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from vaultlayer_hf.cli.run_folders import Target, has_trained, run_of
from vaultlayer_hf.run import journal
from vaultlayer_hf.stores.uri import parse_vault
from vaultlayer_hf.vault.log.entry import Entry

_CLOCK_SKEW = 60.0
"""Seconds by which two machines' clocks may differ."""


def with_journal(target: Target, history: Sequence[Entry]) -> Target:
    """Return a vault that was named with the run folder of the `vl run` that trained it last, where one is at hand.

    That is here, in a folder above, or beside the vault. A folder whose `vl run` isn't the one that has claimed the
    vault last is passed over: it doesn't know of what came behind it. ``history``: the vault's log.
    """
    if target.folder is not None or target.vault is None or target.job is not None:
        return target
    claimed = _last_claim(history)
    if claimed is None:
        return target
    for home in _homes(target.vault):
        for folder in reversed(journal.run_folders(home)):
            found = run_of(folder)
            begins = [line["time"] for line in found.journal if line["kind"] == "begin"]
            ends = [line["time"] for line in found.journal if line["kind"] == "end"]
            if not begins or begins[0] - _CLOCK_SKEW > claimed:
                continue
            # Of a script that trains several times, each training has a vault, and the run names the newest.
            if found.vault != target.vault and not has_trained(folder, target.vault):
                continue
            over = bool(ends) and ends[-1] >= begins[-1]
            if not (over and claimed > ends[-1] + _CLOCK_SKEW):
                return replace(found, vault=target.vault)
    return target


def _homes(vault: str) -> list[Path]:
    here = Path.cwd()
    homes = [journal.run_folder(), *(one / journal.DEFAULT_FOLDER for one in (here, *here.parents))]
    place = parse_vault(vault)
    if place.scheme == "file":
        above = Path(place.path).parents[:2]
        homes += [one / journal.DEFAULT_FOLDER for one in above] + list(above)
    return list(dict.fromkeys(homes))


def _last_claim(history: Sequence[Entry]) -> float | None:
    """Return when a vault was claimed last, in seconds since the epoch; None where that can't be told."""
    claims = [entry.time for entry in history if entry.kind == "claim"]
    try:
        return datetime.fromisoformat(claims[-1]).timestamp() if claims else None
    except ValueError:
        return None
