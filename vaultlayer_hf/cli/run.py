"""`vl run`: a training script, unedited, gets resume and upload, and is started again when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, fail, one_line_errors, span
from vaultlayer_hf.cli.init import offer_before_run
from vaultlayer_hf.cli.mistyped import check_named, misplaced
from vaultlayer_hf.cli.submit import (
    ClusterOption,
    DryOption,
    EngineOption,
    GpusOption,
    NodesOption,
    OnOption,
    QueueOption,
    RestartsOption,
    SpotOption,
    TimeOption,
    hand_in,
    make_request,
    only_elsewhere,
    run_options,
)

if TYPE_CHECKING:
    from vaultlayer_hf.run.options import Options
    from vaultlayer_hf.run.supervise import RunOutcome

_ELSEWHERE = (
    "vl run needs Linux or macOS, since it watches processes by signals: on Windows start it in WSL; the commands "
    "that look at vaults work without"
)
CommandArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="-- COMMAND...", help="python train.py …, torchrun …, accelerate launch …, a notebook."
    ),
]
VaultOption = Annotated[
    str | None,
    typer.Option(
        "--vault",
        metavar="URI",
        help="Where the checkpoints are kept. Default: VAULTLAYER_VAULT, the project's vaultlayer.toml or "
        "[tool.vaultlayer] in pyproject.toml, else a folder beside the script.",
    ),
]
InsertOption = Annotated[
    bool,
    typer.Option("--insert/--no-insert", help="Put the vault into Trainers that have none of their own."),
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Edit a script with a loop of its own as `vl init` proposes, without asking."
    ),
]
HangOption = Annotated[
    float | None,
    typer.Option(
        "--hang-after",
        metavar="SPAN",
        parser=span("--hang-after", 0.1),
        help="Silence that counts as a hang, such as 10min; default: learnt.",
    ),
]
StuckOption = Annotated[
    int, typer.Option("--give-up-after", metavar="N", min=1, help="Attempts in a row without progress.")
]
WalkOption = Annotated[
    int,
    typer.Option(
        "--walk-back", metavar="N", min=0, help="Walks back in a row for a loss that is nan or inf."
    ),
]
BackoffOption = Annotated[
    float,
    typer.Option(
        "--backoff",
        metavar="SPAN",
        parser=span("--backoff"),
        show_default=False,
        help="First wait after an attempt without progress; default 1s.",
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        "--grace",
        metavar="SPAN",
        parser=span("--grace"),
        show_default=False,
        help="Time to end by itself once it is told to stop, such as 2min; default 5min.",
    ),
]
SpareOption = Annotated[
    bool | None,
    typer.Option(
        "--spare/--no-spare",
        help="Keep an interpreter ready, with the program's imports done, for a quick restart (about 330 MB). "
        "Default: spare in the project's configuration, else yes.",
    ),
]
RunJsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object at the end; the program's stdout goes to stderr."),
]


def run(
    command: CommandArgument,
    vault: VaultOption = None,
    insert: InsertOption = True,
    yes: YesOption = False,
    hang_after: HangOption = None,
    give_up_after: StuckOption = 5,
    walk_back: WalkOption = 3,
    backoff: BackoffOption = 1.0,
    grace: GraceOption = 300.0,
    spare: SpareOption = None,
    on: OnOption = None,
    nodes: NodesOption = None,
    gpus: GpusOption = None,
    spot: SpotOption = False,
    max_restarts: RestartsOption = None,
    queue: QueueOption = None,
    cluster: ClusterOption = None,
    time_limit: TimeOption = None,
    engine_option: EngineOption = None,
    dry_run: DryOption = False,
    as_json: RunJsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a training script with resume and upload, and start it again when it dies.

    A script that makes a Trainer is left as it is. One with a loop of its own needs the edit that `vl init` proposes;
    on the first run it is shown, and made where you agree.

    What is done depends on why it died: out of memory halves the micro-batch, a loss that is nan walks back a
    checkpoint, an error before the first step stops at once, and so on. Logs and decisions: the folder .vl beside
    the script, or VAULTLAYER_RUN_DIR.

    With --on an engine starts it on other machines, and starts it again there when one is gone.

    Example: vl run --vault s3://bucket/my-run -- torchrun --nproc-per-node 2 train.py --lr 1e-4
    """
    with one_line_errors(debug):
        if on is None and os.name != "posix":
            raise fail(ExitCode.USAGE, _ELSEWHERE)
        from vaultlayer_hf.run.decide.decision import Limits
        from vaultlayer_hf.run.journal import JOURNAL, own_folder, run_folder
        from vaultlayer_hf.run.options import Options
        from vaultlayer_hf.run.program import as_program, program_of, script_of
        from vaultlayer_hf.run.supervise import supervise
        from vaultlayer_hf.run.vaults import choose_vault, which_vault
        from vaultlayer_hf.stores.uri import parse_vault

        if on is None or "k8s" not in on:  # there the script is in an image
            check_named(command, elsewhere=on is not None)
        if lost := misplaced(command):
            say(lost)
        choice = choose_vault(vault, command)
        address, script = parse_vault(choice.uri), script_of(command)
        if choice.other is not None:
            other = shlex.quote(os.path.relpath(choice.other))
            say(
                "no run has begun by this command line, so it has a vault of its own and begins at step 0; another "
                f"one has trained {script} into {other}: --vault {other} goes on there"
            )
        if on is None:
            only_elsewhere(
                nodes=nodes, gpus=gpus, spot=spot, max_restarts=max_restarts is not None, queue=queue,
                cluster=cluster, time_limit=time_limit, engine_option=engine_option, dry_run=dry_run,
            )  # fmt: skip
        else:
            request = make_request(
                command,
                choice,
                run_folder(script),
                run_options(insert, hang_after, give_up_after, walk_back, backoff, spare),
                nodes=nodes,
                gpus=gpus,
                spot=spot,
                max_restarts=max_restarts,
                queue=queue,
                cluster=cluster,
                time_limit=time_limit,
                grace=grace,
                engine_options=engine_option,
            )
            if insert and script is not None and script.suffix == ".py" and not dry_run:
                offer_before_run(script, vault, yes, say)
            if hand_in(on, request, dry=dry_run, as_json=as_json, say=say):
                return
        options = Options(
            command=as_program(command),
            vault=address.uri,
            at=address.named,
            vault_source=choice.source,
            folder=own_folder(run_folder(script), program_of(command), address.uri),
            insert=insert,
            hang_after=hang_after,
            grace=grace,
            limits=Limits(stuck=give_up_after, walk_back=walk_back, backoff=backoff),
            environment=choice.variables,
            quiet_stdout=as_json,
            spare=choice.spare if spare is None else spare,
        )
        say(which_vault(address, choice))
        folder = shlex.quote(os.path.relpath(options.folder))
        say(f"how it goes: vl status {folder} --watch; what it prints: vl logs {folder} --follow")
        first = not (options.folder / JOURNAL).exists()
        if insert and script is not None and script.suffix == ".py" and (yes or first):
            offer_before_run(script, vault, yes, say)
        try:
            ending = supervise(options, say)
        except FileNotFoundError as error:
            if error.filename != options.command[0]:
                raise
            raise fail(ExitCode.USAGE, f"there is no program {options.command[0]!r}") from error
        except PermissionError as error:
            if error.filename != options.command[0]:
                raise
            raise fail(
                ExitCode.USAGE,
                f"{error.filename} isn't executable: chmod +x it, or name what runs it before it",
            ) from error
        _tell(options, ending)
        if as_json:
            typer.echo(json.dumps(describe(options, ending), indent=2))
        if ending.code:
            raise typer.Exit(ending.code)


def say(message: str) -> None:
    """Tell a person what `vl run` does, among what the program says. Whoever listened may have gone."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        typer.echo(f"[vl] {message}", err=True)


def describe(options: Options, ending: RunOutcome) -> dict[str, Any]:
    """Return what `vl run --json` prints."""
    decision, death = ending.decision, ending.death
    return {
        "command": list(options.command),
        "vault": options.vault,
        "vault_source": options.vault_source,
        "run_folder": str(options.folder),
        "attempts": ending.attempts,
        "seconds": round(ending.seconds, 3),
        "step": death.step,
        "committed": death.committed,
        "action": decision.action.value,
        "cause": decision.cause.value,
        "detail": decision.detail,
        "reason": decision.reason,
        "code": ending.code,
    }


def _tell(options: Options, ending: RunOutcome) -> None:
    from vaultlayer_hf.run.decide.lines import last_line
    from vaultlayer_hf.run.program import other_python

    decision, error = ending.decision, ending.decision.blame
    attempts = f"{ending.attempts} attempt{'s' if ending.attempts > 1 else ''}"
    if ending.number > ending.attempts:
        attempts += " of this start"
    attempts += f", {ending.seconds:.0f} s"
    if decision.action.value == "stop" and error is not None and not ending.shown:
        typer.echo(error.traceback.rstrip(), err=True)
    folder = shlex.quote(os.path.relpath(options.folder))
    if decision.action.value == "done":
        say(f"done: {attempts}; what happened: vl status {folder}")
    else:
        say(f"{last_line(decision)} ({attempts}; vl status {folder})")
        other = other_python(options.command)
        if other is not None and error is not None and error.type.rpartition(".")[2] == "ModuleNotFoundError":
            say(
                f"{options.command[0]} is {other}, and vl belongs to {sys.executable}: activate that environment "
                "first, or leave out the Python, as in `vl run train.py`"
            )
    for notebook in sorted(options.folder.glob("attempt-*/*.ipynb"))[-1:]:
        say(f"the notebook with its outputs: {os.path.relpath(notebook)}")
