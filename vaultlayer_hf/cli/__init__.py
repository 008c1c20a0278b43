"""The command `vl`: one file a command.

Nothing here imports torch, transformers or a store before a command needs it: `vl --help` and the shell's
completion must answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from vaultlayer_hf.cli.common import EXIT_CODES
from vaultlayer_hf.cli.demo import demo
from vaultlayer_hf.cli.diff import diff
from vaultlayer_hf.cli.doctor import doctor
from vaultlayer_hf.cli.init import init
from vaultlayer_hf.cli.logs import logs
from vaultlayer_hf.cli.ls import ls
from vaultlayer_hf.cli.pin import pin
from vaultlayer_hf.cli.prune import prune
from vaultlayer_hf.cli.pull import pull
from vaultlayer_hf.cli.report import report
from vaultlayer_hf.cli.run import run
from vaultlayer_hf.cli.show import show
from vaultlayer_hf.cli.status import status
from vaultlayer_hf.cli.verify import verify
from vaultlayer_hf.cli.why import why

_HELP = """Checkpoints that survive: see and check what a vault holds.

Example: vl ls s3://bucket/my-run

Exit codes: """ + "; ".join(f"{int(code)} {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    name="vl",
    help=_HELP,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (init, ls, show, why, verify, pull, diff, pin, prune, status, logs, report, doctor, demo):
    app.command()(command)
app.command(context_settings={"allow_interspersed_args": False})(run)


def _version(asked: bool) -> None:
    if asked:
        from vaultlayer_hf.base.versions import __version__

        typer.echo(f"vl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run `vl` with the arguments of the process; exits with one of ``common.ExitCode``."""
    app()
