"""`vl stop`: tells a run to save and end, wherever it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, fail, one_line_errors
from vaultlayer_hf.cli.gather import TargetArgument, find_target
from vaultlayer_hf.cli.jobs import named_job, newest_job
from vaultlayer_hf.cli.journal_of_vault import with_journal
from vaultlayer_hf.cli.living_run import living_run
from vaultlayer_hf.cli.named_vault import open_if_there
from vaultlayer_hf.cli.run_folders import Target, given_vault
from vaultlayer_hf.errors import VaultLayerError

NowOption = Annotated[bool, typer.Option("--now", help="End it at once, without a save.")]

_BETWEEN = 0.02
"""Seconds between two signals, so that the first one is that of which is told."""


def stop(
    target: TargetArgument = None,
    now: NowOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell a run to save and end, and its engine not to start it again.

    The same command that started it goes on with the run later.

    Example: vl stop slurm:4711
    """
    with one_line_errors(debug):
        done = _stop(target, now)
        if as_json:
            typer.echo(json.dumps(done, indent=2))
        else:
            typer.echo(done["message"])


def _stop(text: str | None, now: bool) -> dict[str, Any]:
    from vaultlayer_hf.run.engines.jobs.table import engine

    job = named_job(text)
    if job is None:
        found = find_target(text)
        job = newest_job(text, given_vault(found.journal) or found.vault)
        found = _with_run(found)
        begin = living_run(found.journal, elsewhere=lambda _: False)  # a signal reaches this machine alone
        if begin is not None and (job is None or job.time < begin["time"]):
            _signal(int(begin["pid"]), now=now)
            said = f"vl run (process {begin['pid']}) is told to {'end at once' if now else 'save and end'}"
            return {"job": None, "pid": begin["pid"], "message": said}
    if job is None:
        raise fail(
            ExitCode.FAILED,
            "neither a job nor a `vl run` that is alive is here: name a job, such as slurm:4711, or the folder of a "
            "run on this machine, such as .vl",
        )
    message = engine(job.engine).stop(job, now=now)
    return {"job": str(job), "pid": None, "message": message}


def _with_run(target: Target) -> Target:
    """Return a vault that was named with the folder of the `vl run` that trains it, where one is at hand.

    Raises VaultUriError, StoreError, CorruptError, where no job of this vault is known either.
    """
    if target.folder is not None or target.vault is None:
        return target
    try:
        vault = open_if_there(target.vault)
        if vault is None:
            return target
        with vault:
            return with_journal(replace(target, job=None), vault.history())
    except VaultLayerError:
        if target.job is None:
            raise
        return target


def _signal(pid: int, *, now: bool) -> None:
    """Tell `vl run` to end; ``now``: by two signals at once, of which it makes a kill. Two of one kind count as one."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.kill(pid, signal.SIGTERM)
        if now:
            time.sleep(_BETWEEN)
            os.kill(pid, signal.SIGINT)
