"""Finds what a person means by TARGET, a run folder or a vault, and reads what there is of both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.cli.common import ExitCode, fail
from vaultlayer_hf.cli.jobs import job_homes, named_job, newest_job
from vaultlayer_hf.cli.journal_of_vault import with_journal
from vaultlayer_hf.cli.living_run import is_heard, living_run
from vaultlayer_hf.cli.named_vault import full_uri, no_vault, open_if_there, refuse_step
from vaultlayer_hf.cli.run_folders import Target, find_run, find_run_folder, given_vault, run_of
from vaultlayer_hf.errors import VaultLayerError
from vaultlayer_hf.run import journal
from vaultlayer_hf.run.program import SCRIPTS

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job
    from vaultlayer_hf.run.story import RunStory
    from vaultlayer_hf.state.tracker_runs import Runs
    from vaultlayer_hf.vault.log.entry import Entry
    from vaultlayer_hf.vault.reader.vault import Vault

TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN_OR_VAULT]",
        help="The folder that `vl run` keeps (.vl, or the one beside which it is), its script, or a vault. Without "
        "one, the folder of VAULTLAYER_RUN_DIR, or the newest run here, in a folder above, or started from here. "
        "ENGINE:ID names a job of `vl run --on`, such as slurm:4711.",
    ),
]
TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN_OR_VAULT]...", help="One run or vault, as `vl status` takes it, or several to compare."
    ),
]
_AWAIT = 0.5
"""Seconds between two looks for a run that isn't there yet."""


def find_target(text: str | None) -> Target:
    """Return what ``text`` means. Raises typer.Exit where there is no such thing; VaultUriError."""
    found = known_run(text)
    if found is not None:
        return found
    if text is None:
        raise fail(
            ExitCode.FAILED,
            f"no run was started here (there is no run folder {journal.run_folder()}): name the folder of a run, or a "
            "vault such as s3://bucket/my-run, or start a run with `vl run train.py`",
        )
    if text.endswith(SCRIPTS) and os.path.isfile(text):
        raise fail(ExitCode.FAILED, f"no run of {text} was started yet: `vl run {text}` starts one")
    refuse_step(text, "this command shows")
    vault = full_uri(text)
    return Target(None, vault, job=newest_job(None, vault))


def known_run(text: str | None) -> Target | None:
    """Return the run or job that ``text`` means, or the one that was started here; None where there is none."""
    job = named_job(text)
    if job is not None:
        return _of_job(job)
    found = find_run(text)
    if found is not None:
        return replace(found, job=newest_job(text, given_vault(found.journal) or found.vault))
    job = newest_job(text)
    return _of_job(job) if job is not None else None


def _of_job(job: Job) -> Target:
    """Return a job with the run folder that it keeps, where that can be seen from here."""
    for home in job_homes(job):
        for folder in reversed(journal.run_folders(home)):
            lines = journal.read_journal(folder)
            begins = [line for line in lines if line["kind"] == "begin"]
            if begins and begins[-1]["time"] >= job.time and begins[-1].get("vault") == job.vault:
                return replace(run_of(folder), job=job)
    return Target(None, job.vault or None, job=job)


def gather(target: Target) -> RunStory:
    """Read all that there is. A vault that can't be read is said in the story, where something else tells the rest.

    Of a vault that was named, the run folder that knows of it counts as well, where one is at hand.

    Raises typer.Exit where a vault was asked for and there is none; StoreError, CorruptError.
    """
    from vaultlayer_hf.run.assemble import assemble

    history: list[Entry] = []
    trouble: list[str] = []
    trackers: Runs = {}
    if target.vault is not None:
        try:
            vault = open_if_there(target.vault)
            if vault is not None:
                with vault:
                    history = vault.history()
                    trouble += dict.fromkeys(vault.damage)
                    trackers = _trackers(vault)
            elif target.folder is None and target.job is None:
                raise fail(ExitCode.FAILED, no_vault(target.vault))
        except VaultLayerError as error:
            if target.folder is None and target.job is None:
                raise
            trouble.append(str(error))
    target = with_journal(target, history)
    notes: dict[int, Any] = {}
    beats: dict[int, dict[str, Any]] = {}
    for number in journal.attempts(target.folder) if target.folder else ():
        attempt = journal.attempt_folder(target.folder, number)  # type: ignore[arg-type]
        notes[number] = journal.read_notes(attempt)
        pulse = journal.read_beats(attempt).get(0)
        if pulse is not None:
            beats[number] = pulse
    now = time.time()
    lines = target.journal
    living = living_run(lines, lambda begin: is_heard(begin, lines, beats, now))
    alive = living is not None
    story = assemble(lines, notes, beats, history, vault=target.vault, alive=alive, now=now)
    return replace(story, trouble=tuple(trouble), trackers=trackers)


def _trackers(vault: Vault) -> Runs:
    """Return which runs the trackers had at the newest checkpoint; nothing where it can't be read.

    A damaged checkpoint is `vl verify`'s and the next start's to find: how the run is can be shown all the same.
    """
    from vaultlayer_hf.state.tracker_runs import FILE, decode_runs

    newest = vault.state.newest if vault.state else None
    if newest is None:
        return {}
    try:
        return decode_runs(vault.read(newest, FILE))
    except VaultLayerError:
        return {}


def await_target(text: str | None, notify: Callable[[str], None]) -> None:
    """Wait until there is what ``text`` means; ``notify`` is called once where there isn't yet. Raises StoreError."""
    waits = False
    while find_run_folder(text) is None and named_job(text) is None and (text is None or not _is_vault(text)):
        if not waits:
            notify(
                f"waiting for a run {'in this folder' if text is None else f'at {text}'}: start it with `vl run`"
            )
        waits = True
        time.sleep(_AWAIT)


def _is_vault(text: str) -> bool:
    vault = open_if_there(text)
    if vault is not None:
        vault.close()
    return vault is not None
