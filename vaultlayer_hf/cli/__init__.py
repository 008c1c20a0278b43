"""The command `vl`: one file a command.

Nothing here imports torch, transformers or a store before a command needs it: `vl --help` and the shell's
completion must answer at once.

    __main__.py     `python -m vaultlayer_hf.cli` is `vl`, for where the script isn't on PATH
    archive.py      `vl archive`
    arguments.py    what a checkpoint's training_args.bin says, without running it
    charts.py       pictures of a run, drawn by matplotlib from its story
    checks.py       what `vl doctor` tries
    common.py       what the commands share
    compared.py     what tells runs apart that are side by side: losses, metrics, settings
    copy.py         `vl copy`
    demo.py         `vl demo`
    demo_run.py     one training process of `vl demo`, seen from its parent
    demo_story.py   the three acts of `vl demo` and its verdict
    diff.py         `vl diff`: two checkpoints side by side: step, loss, settings, files
    doctor.py       `vl doctor`
    figures.py      losses and metrics that a checkpoint's own files hold
    gather.py       finds what a person means by TARGET, a run folder or a vault
    init.py         `vl init`
    jobs.py         finds a job of another machine, and asks its engine
    journal_of_vault.py  finds the run folder of a vault that was named
    living_run.py   finds the `vl run` of a run folder that is alive
    logs.py         `vl logs`
    ls.py           `vl ls`: the checkpoints of a vault, newest last
    mistyped.py     what was mistyped in the command of `vl run`
    named_vault.py  the vault, and the checkpoint in it, that a person has named to a command
    pin.py          `vl pin`
    prediction.py   what `vl doctor` predicts of a run
    prune.py        `vl prune --dry-run`
    pull.py         `vl pull`
    push.py         `vl push`
    report.py       `vl report`
    run.py          `vl run`
    run_folders.py  finds the run folder that a person means
    show.py         `vl show`: one checkpoint: what it is, and its files with sizes and digests
    side_by_side.py pictures of several runs on the same axes
    status.py       `vl status`: how a run is: step, speed, last commit, exposure, attempts
    stop.py         `vl stop`
    submit.py       `vl run --on`
    tables.py       lines and tables for a person
    verify.py       `vl verify`: read every byte of a vault's checkpoints and compare the digests
    why.py          `vl why`: why a checkpoint is, or is not, the one that the next start resumes from

Imports all below; nothing imports it.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vaultlayer_hf.cli.archive import archive
from vaultlayer_hf.cli.common import EXIT_CODES
from vaultlayer_hf.cli.copy import copy
from vaultlayer_hf.cli.demo import demo
from vaultlayer_hf.cli.diff import diff
from vaultlayer_hf.cli.doctor import doctor
from vaultlayer_hf.cli.init import init
from vaultlayer_hf.cli.logs import logs
from vaultlayer_hf.cli.ls import ls
from vaultlayer_hf.cli.pin import pin
from vaultlayer_hf.cli.prune import prune
from vaultlayer_hf.cli.pull import pull
from vaultlayer_hf.cli.push import push
from vaultlayer_hf.cli.report import report
from vaultlayer_hf.cli.run import run
from vaultlayer_hf.cli.show import show
from vaultlayer_hf.cli.status import status
from vaultlayer_hf.cli.stop import stop
from vaultlayer_hf.cli.verify import verify
from vaultlayer_hf.cli.why import why

_HELP = """Keep a training run going, and see and check what its vault holds.

Example: vl run --vault s3://bucket/my-run -- python train.py

Exit codes: """ + "; ".join(f"{int(code)} {meaning}" for code, meaning in EXIT_CODES.items())

_START = (
    ("  vl run train.py", "start a training; with --vault s3://bucket/my-run it outlives this machine"),
    ("  vl demo", "see it happen: a training that is killed and goes on"),
    ("  vl doctor s3://bucket/my-run", "try out a store and this machine before the first run"),
)
_RUN_HERE = (
    ("  vl status", "how it is; --watch shows it again and again"),
    ("  vl logs", "what it prints; --follow goes on with it"),
)
_NAMES = 33
"""Columns from the left edge to what these commands do."""
_FRAMED = 60
"""Columns of a terminal from which on a help text has frames: narrower, rich cuts the names of options short."""


@contextlib.contextmanager
def _plain_if_narrow(command: TyperCommand | TyperGroup, formatter: Any) -> Iterator[None]:
    """Have a command write its help as plain text meanwhile, where the terminal is too narrow for frames."""
    before, columns = command.rich_markup_mode, shutil.get_terminal_size().columns
    if columns < _FRAMED:
        command.rich_markup_mode = None
        formatter.width = columns - 1  # of itself it takes 50 at least
        # Behind a name that is longer than this the text begins on the next line, and has room there.
        formatter.write_dl = functools.partial(formatter.write_dl, col_max=12)
    try:
        yield
    finally:
        command.rich_markup_mode = before


def _without_types(parameters: list[Any]) -> list[Any]:
    """Have arguments and flags shown without a type in a help text: `--json <bool>` looks as if it took a value."""
    for one in parameters:
        if one.param_type_name == "argument" or getattr(one, "is_flag", False):
            one.display_type_rich = lambda ctx: ""
    return parameters


class _Group(TyperGroup):
    """`vl` itself, whose help has no frames in a narrow terminal."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _plain_if_narrow(self, formatter):
            super().format_help(ctx, formatter)


class _Command(TyperCommand):
    """A command whose usage line shows its arguments as their metavars say: typer adds brackets of its own.

    Its help has no frames in a narrow terminal.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        return super().get_short_help_str(limit=1000)  # whole: the list of commands folds it

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _plain_if_narrow(self, formatter):
            super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(one.metavar) for one in arguments)]


app = typer.Typer(
    name="vl",
    cls=_Group,
    help=_HELP,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_GROUPS = {
    "Run": (run, stop),
    "Look": (status, ls, logs, show, why, diff, report),
    "Keep": (pull, push, copy, verify, pin, prune, archive),
    "Set up": (doctor, init, demo),
}
for group, commands in _GROUPS.items():
    for command in commands:
        own = {"allow_interspersed_args": False} if command is run else None
        app.command(cls=_Command, rich_help_panel=group, context_settings=own)(command)


def _version(asked: bool) -> None:
    if asked:
        from vaultlayer_hf.base.versions import __version__

        typer.echo(f"vl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        _introduce()


def _introduce() -> None:
    """Print what to do first, and what to do about the run that was started here, where there is one."""
    from vaultlayer_hf.cli.gather import known_run
    from vaultlayer_hf.cli.tables import print_items, say

    say("vl starts a training, starts it again when it dies, and keeps its checkpoints in a vault.")
    say("")
    print_items(_START, indent=_NAMES)
    target = known_run(None)
    if target is not None:
        for line in ("", "A run was started here:", ""):
            say(line)
        print_items([*_RUN_HERE, (f"  vl ls {target.vault or 'VAULT'}", "its checkpoints")], indent=_NAMES)
    say("")
    say("Usage: vl COMMAND; all commands: vl --help; one of them: vl COMMAND --help")


def main() -> None:
    """Run `vl` with the arguments of the process; exits with one of ``common.ExitCode``."""
    app()
