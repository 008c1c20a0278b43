"""`vl stop`: tells a run to save and end, wherever it runs."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Annotated, Any

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, fail, one_line_errors
from vaultlayer_hf.cli.gather import TargetArgument, find_target
from vaultlayer_hf.cli.jobs import named_job, newest_job
from vaultlayer_hf.cli.living_run import living_run
from vaultlayer_hf.cli.run_folders import given_vault

NowOption = Annotated[bool, typer.Option("--now", help="End it at once, without a save.")]

_BETWEEN = 2.5
"""Seconds between two signals: `vl run` takes two that come together for one."""


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
        begin = living_run(found.journal, elsewhere=lambda _: False)  # a signal reaches this machine alone
        if begin is not None and (job is None or job.time < begin["time"]):
            _signal(int(begin["pid"]), twice=now)
            said = f"vl run (process {begin['pid']}) is told to {'end at once' if now else 'save and end'}"
            return {"job": None, "pid": begin["pid"], "message": said}
    if job is None:
        raise fail(
            ExitCode.FAILED,
            "neither a job nor a `vl run` that is alive is here: name one, such as slurm:4711",
        )
    message = engine(job.engine).stop(job, now=now)
    return {"job": str(job), "pid": None, "message": message}


def _signal(pid: int, *, twice: bool) -> None:
    os.kill(pid, signal.SIGTERM)
    if twice:
        time.sleep(_BETWEEN)
        os.kill(pid, signal.SIGTERM)
