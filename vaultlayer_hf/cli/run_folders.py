"""Finds the run folder that a person means, and the vault of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaultlayer_hf.run import journal
from vaultlayer_hf.run.program import SCRIPTS
from vaultlayer_hf.run.trainings import Part, newest_of, parts_of, vaults_of

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job


@dataclass(frozen=True)
class Target:
    """What was meant: a run folder, a vault, or a run folder and the vault that it names.

    Attributes:
        folder: the run folder, or None.
        vault: URI of the vault, or None.
        journal: lines of the run folder's journal.
        job: what was handed in to an engine, where that is the newest start of this run.
    """

    folder: Path | None
    vault: str | None
    journal: Sequence[dict[str, Any]] = ()
    job: Job | None = None


def vault_of_run(folder: str) -> str | None:
    """Return the vault of the newest run in a folder, which may be a run folder or lie beside one; None: no run."""
    found = find_run(folder)
    return found.vault if found is not None else None


def find_run(text: str | None) -> Target | None:
    """Return the run folder that is meant, with its vault; None where there is none."""
    folder = find_run_folder(text)
    return run_of(folder) if folder is not None else None


def run_of(folder: Path) -> Target:
    """Return a run folder with its journal and the vault of its newest training: a script may name or have others."""
    lines = journal.read_journal(folder)
    return Target(folder, newest_of(_trainings(folder)) or given_vault(lines), lines)


def given_vault(lines: Sequence[dict[str, Any]]) -> str | None:
    """Return the vault that the newest `vl run` of a journal gave its program; None where it says of none."""
    named = [str(line["vault"]) for line in lines if line["kind"] == "begin" and line.get("vault")]
    return named[-1] if named else None


def has_trained(folder: Path, vault: str) -> bool:
    """Tell whether a run folder knows of a training on a vault."""
    return vault in vaults_of(_trainings(folder))


def _trainings(folder: Path) -> list[list[Part]]:
    attempts = (journal.attempt_folder(folder, number) for number in journal.attempts(folder))
    return [parts_of(journal.read_notes(attempt).get(0, [])) for attempt in attempts]


def find_run_folder(text: str | None) -> Path | None:
    """Return the run folder that is meant; None where a vault is."""
    if text is None:
        return _nearest()
    path = Path(text).expanduser().absolute()
    if path.suffix in SCRIPTS and path.is_file():
        found = journal.run_folders(journal.run_folder(path))
        its = [folder for folder in found if (journal.owner_of(folder) or ("", ""))[0] == str(path)]
        return next(iter([*found, *its][::-1]), None)
    if (path / journal.JOURNAL).is_file():
        return path
    homes = [path / journal.DEFAULT_FOLDER, path]
    return next((found[-1] for home in homes if (found := journal.run_folders(home))), None)


def _nearest() -> Path | None:
    """Return the newest run folder of the nearest place: here, above, or where a script lies that was started here."""
    here = Path.cwd()
    home = journal.run_folder()
    homes = [home] if home.parent != here else [one / home.name for one in (here, *here.parents)]
    for home in homes:
        if found := journal.run_folders(home):
            return found[-1]
    elsewhere = [
        folder
        for pattern in (here, here.parent)
        for home in pattern.glob(f"*/{journal.DEFAULT_FOLDER}")
        for folder in journal.run_folders(home)
        if any(
            line.get("cwd") == str(here) for line in journal.read_journal(folder) if line["kind"] == "begin"
        )
    ]
    return max(elsewhere, key=lambda folder: (folder / journal.JOURNAL).stat().st_mtime, default=None)
