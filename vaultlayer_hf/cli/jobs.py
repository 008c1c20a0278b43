"""Finds the job of another machine that a person means, and asks its engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaultlayer_hf.run import journal

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job, JobState


def named_job(text: str | None) -> Job | None:
    """Return the job that ``ENGINE:ID`` names, with what was noted of it here; None where the text is no such name."""
    from vaultlayer_hf.run.engines.jobs.base import Job
    from vaultlayer_hf.run.engines.jobs.table import NAMES

    engine, sign, number = (text or "").partition(":")
    if not sign or engine not in NAMES or not number or number.startswith("//"):
        return None
    noted = [job for home in _homes(None) for job in _read(home) if (job.engine, job.id) == (engine, number)]
    return noted[-1] if noted else Job(engine, number)


def newest_job(text: str | None, vault: str | None = None) -> Job | None:
    """Return the newest job that was handed in from a place; of a vault, where one is named. None: there is none.

    Args:
        text: a folder, a script, a vault, or None for here and the folders above.
        vault: only jobs of this vault.
    """
    for home in _homes(text):
        found = [job for job in _read(home) if vault is None or job.vault == vault]
        if found:
            return found[-1]
    return None


def ask(job: Job) -> JobState:
    """Return how a job is; where its engine can't be asked, unknown with the reason."""
    from vaultlayer_hf.errors import MissingExtraError
    from vaultlayer_hf.run.engines.jobs.base import EngineError, JobState
    from vaultlayer_hf.run.engines.jobs.table import engine

    try:
        return engine(job.engine).state(job)
    except (EngineError, MissingExtraError) as error:
        return JobState("unknown", str(error))


def job_homes(job: Job) -> list[Path]:
    """Return the folders in which a job was noted, and so its run folders may be, where the nodes see this disk."""
    return [
        home
        for home in _homes(None)
        if any((one.engine, one.id) == (job.engine, job.id) for one in _read(home))
    ]


def _homes(text: str | None) -> list[Path]:
    """Return the folders in which jobs may be noted, the nearest first."""
    path = Path(text).expanduser().absolute() if text and "://" not in text else None
    if path is not None and path.is_file():
        return [journal.run_folder(path)]
    if path is not None and path.is_dir():
        return [path / journal.DEFAULT_FOLDER, path, path.parent]
    here = Path.cwd()
    home = journal.run_folder()
    if home.parent != here:
        return [home]
    return [one / home.name for one in (here, *here.parents)] + sorted(here.glob(f"*/{home.name}"))


def _read(home: Path) -> list[Job]:
    from vaultlayer_hf.run.engines.jobs.record import read_jobs

    return read_jobs(home)
