"""`vl run --on`: hands a run to an engine that starts it on other machines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaultlayer_hf.base.secrets import redact
from vaultlayer_hf.base.spans import parse_duration
from vaultlayer_hf.errors import MissingExtraError, SettingsError
from vaultlayer_hf.run.engines.jobs.base import MAX_RESTARTS, EngineError, Gpus, JobRequest, parse_gpus

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job
    from vaultlayer_hf.run.vaults import Choice

_ELSEWHERE = "On other machines"

OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ENGINE",
        help="slurm, ray, sky or k8s: hand the run in there; several, or any: the first one that takes it.",
        rich_help_panel=_ELSEWHERE,
    ),
]
NodesOption = Annotated[
    int | None,
    typer.Option("--nodes", metavar="N", min=1, help="Machines; default 1.", rich_help_panel=_ELSEWHERE),
]
GpusOption = Annotated[
    str | None,
    typer.Option(
        "--gpus", metavar="[KIND:]N", help="GPUs of each machine: 8, A100:8.", rich_help_panel=_ELSEWHERE
    ),
]
SpotOption = Annotated[
    bool,
    typer.Option("--spot", help="Machines that may be taken away, for less.", rich_help_panel=_ELSEWHERE),
]
RestartsOption = Annotated[
    int | None,
    typer.Option(
        "--max-restarts",
        metavar="N",
        min=0,
        help="How often the engine starts it again; default 100.",
        rich_help_panel=_ELSEWHERE,
    ),
]
QueueOption = Annotated[
    str | None,
    typer.Option("--queue", metavar="NAME", help="Where it waits for its turn.", rich_help_panel=_ELSEWHERE),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="NAME", help="Which cluster, address or clouds.", rich_help_panel=_ELSEWHERE
    ),
]
TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="SPAN",
        help="What one start may take, such as 12h; then it saves, ends and is started again.",
        rich_help_panel=_ELSEWHERE,
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="NAME=VALUE",
        help="An option of the engine's own; may be repeated.",
        rich_help_panel=_ELSEWHERE,
    ),
]
DryOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be handed in, and stop.", rich_help_panel=_ELSEWHERE),
]


def only_elsewhere(**given: object) -> None:
    """Refuse options that mean nothing without ``--on``. Raises SettingsError."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise SettingsError(
            f"{', '.join(named)} {'are' if len(named) > 1 else 'is'} for a run on other machines: add --on ENGINE"
        )


def make_request(
    command: Sequence[str],
    choice: Choice,
    home: Path,
    run_options: Sequence[str],
    *,
    nodes: int | None,
    gpus: str | None,
    spot: bool,
    max_restarts: int | None,
    queue: str | None,
    cluster: str | None,
    time_limit: str | None,
    grace: float,
    engine_options: Sequence[str] | None,
) -> JobRequest:
    """Return what a job is asked to be. Raises SettingsError."""
    from vaultlayer_hf.run.program import script_of
    from vaultlayer_hf.stores.uri import parse_vault

    script, address = script_of(command), parse_vault(choice.uri)
    more = dict(_pair(one) for one in engine_options or ())
    return JobRequest(
        command=command,
        vault=address.uri,
        at=address.named,
        name=_job_name(script.stem if script else Path(command[0]).name),
        folder=Path.cwd(),
        home=home,
        module=__name__.rpartition(".")[0],
        run_options=[*run_options, "--grace", f"{grace:.0f}"],
        variables={**choice.variables, **_settings()},
        nodes=nodes or 1,
        gpus=parse_gpus(gpus) if gpus else Gpus(),
        spot=spot,
        max_restarts=MAX_RESTARTS if max_restarts is None else max_restarts,
        queue=queue,
        cluster=cluster,
        time_limit=parse_duration(time_limit, "--time-limit"),
        grace=grace,
        more=more,
    )


def run_options(
    insert: bool,
    hang_after: float | None,
    give_up_after: int,
    walk_back: int,
    backoff: float,
    spare: bool | None,
) -> list[str]:
    """Return the options of `vl run` for the nodes."""
    found = [
        "--give-up-after",
        str(give_up_after),
        "--walk-back",
        str(walk_back),
        "--backoff",
        f"{backoff:g}",
    ]
    found += [] if insert else ["--no-insert"]
    found += [] if hang_after is None else ["--hang-after", f"{hang_after:g}"]
    return found if spare is None else [*found, "--spare" if spare else "--no-spare"]


def hand_in(on: str, request: JobRequest, *, dry: bool, as_json: bool, say: Callable[[str], None]) -> bool:
    """Hand a run to the first engine of ``on`` that takes it, and say which; False: it is to run here.

    Raises SettingsError, MissingExtraError, EngineError: of the last engine that was tried.
    """
    from vaultlayer_hf.run.engines.jobs.record import write_job
    from vaultlayer_hf.run.engines.jobs.table import HERE, parse_engines

    for name in (names := parse_engines(on)):
        if name == HERE:
            if dry:
                say("it would run here")
            return dry
        try:
            job = _submit(name, request, dry, say)
        except (EngineError, SettingsError, MissingExtraError) as error:
            if name == names[-1]:
                raise
            say(f"{name}: {error}; next: {names[names.index(name) + 1]}")
            continue
        if job is not None:
            say(f"{job.engine} has taken it: vl status {job}; vl logs {job} --follow; vl stop {job}")
            try:
                write_job(request.home, job)
            except OSError as error:  # it runs all the same
                say(f"{job} can't be noted here, so name it in these commands: {error}")
            if as_json:
                typer.echo(json.dumps({"job": str(job), "vault": job.vault, "log": job.log}, indent=2))
        return True
    return False


def _other_job(request: JobRequest) -> str | None:
    """Return a sentence where the last job of this vault that was handed in from here still waits or runs."""
    from vaultlayer_hf.cli.jobs import ask
    from vaultlayer_hf.run.engines.jobs.record import read_jobs

    jobs = [job for job in read_jobs(request.home) if job.vault == request.vault]
    state = ask(jobs[-1]) if jobs else None
    if state is None or not state.alive:
        return None
    return (
        f"{jobs[-1]} is {state.state} on this vault, too: the one that starts last goes on, and the other is fenced; "
        f"vl stop {jobs[-1]} ends it"
    )


def _submit(name: str, request: JobRequest, dry: bool, say: Callable[[str], None]) -> Job | None:
    """Hand a job to an engine, or print what would be handed in."""
    from vaultlayer_hf.run.engines.jobs.command import started_once
    from vaultlayer_hf.run.engines.jobs.table import engine

    taker = engine(name)
    taker.refuse(request)
    text = taker.manifest(request)
    for sentence in [*taker.differs(request), *filter(None, [started_once(request)])]:
        say(f"{name}: {sentence}")
    if redact(text) != text:
        say(
            f"{name}: what is handed in holds what looks like a secret, and all who may look at the job can read it: "
            "the guide to other machines says how keys reach the nodes instead"
        )
    if dry:
        typer.echo(text, nl=not text.endswith("\n"))
        return None
    if (other := _other_job(request)) is not None:
        say(f"{name}: {other}")
    return taker.submit(request)


def _settings() -> dict[str, str]:
    """Return this environment's options of vaultlayer_hf, for engines that hand nothing else on."""
    from vaultlayer_hf.session.settings import settings_table

    names = {name for name, _ in settings_table()} - {"VAULTLAYER_VAULT"}
    return {name: value for name, value in os.environ.items() if name in names}


def _job_name(program: str) -> str:
    """Return a name that every engine's lists can have: SkyPilot's allow letters, digits and single marks alone."""
    plain = re.sub(r"[^A-Za-z0-9]+", lambda found: found[0] if found[0] in "._-" else "-", program)
    return f"vl-{plain.strip('-._')}"[:60].rstrip("-._")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name.strip() or not sign:
        raise SettingsError(f"--engine-option {text}: write NAME=VALUE")
    return name.strip().removeprefix("--"), value
