"""The jobs that were submitted from here: one JSON line each in ``jobs.jsonl``, where run folders are kept.

A job is also found without a line, by ``ENGINE:ID``: the engine keeps records of its own.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from vaultlayer_hf.run.engines.jobs.base import Job
from vaultlayer_hf.run.journal import append, read_lines

JOBS = "jobs.jsonl"


def write_job(home: Path, job: Job) -> None:
    """Note a job. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    append(home / JOBS, {"kind": "job", **asdict(job)})


def read_jobs(home: Path) -> list[Job]:
    """Return the jobs that were noted, oldest first; none where nothing was."""
    names = {field.name for field in fields(Job)}
    found = []
    for line in read_lines(home / JOBS):
        if line["kind"] == "job" and isinstance(line.get("engine"), str) and isinstance(line.get("id"), str):
            found.append(Job(**{name: value for name, value in line.items() if name in names}))
    return found
