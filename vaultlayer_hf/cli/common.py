"""What the commands share: exit codes, errors as one line, options, and how times are written."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated

import typer

from vaultlayer_hf import errors

_BROKEN_PIPE = 141
"""What a shell says of a program that SIGPIPE has ended."""
GOES_ON = "the same command goes on where it was"
"""What a copy says that was interrupted."""
PATIENCE = 10.0
"""Seconds for which a store that doesn't answer is tried again: a person waits."""


class ExitCode(IntEnum):
    """How a command ended; scripts may rely on these numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    STORE = 3
    FENCED = 4
    TRAINING = 5
    BUG = 70
    TOLD = 75
    INTERRUPTED = 130


EXIT_CODES = {
    ExitCode.OK: "all is well",
    ExitCode.FAILED: "something is missing, damaged or not as promised",
    ExitCode.USAGE: "wrong usage, URI, setting or a missing extra",
    ExitCode.STORE: "the store can't be reached, refuses, or is full",
    ExitCode.FENCED: "another process has claimed the vault",
    ExitCode.TRAINING: "the training failed, and starting it again doesn't help",
    ExitCode.BUG: "a bug in vl (run again with --debug)",
    ExitCode.TOLD: "told to end: the same command goes on with the run",
    ExitCode.INTERRUPTED: "interrupted",
}
"""What each code means, as `vl --help` and the README say it."""

VaultArgument = Annotated[
    str,
    typer.Argument(metavar="VAULT", help="The vault: s3://bucket/prefix, file:///folder or a plain path."),
]
CheckpointArgument = Annotated[
    str,
    typer.Argument(
        metavar="VAULT[@STEP]",
        help="The vault, and the step of a checkpoint in it, or best; without one, the newest.",
    ),
]
_OF_THE_RUN = "Without one, the vault of the run that was started here, or that of VAULTLAYER_VAULT."
RunsVaultArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[VAULT]",
        help=f"The vault: s3://bucket/prefix, file:///folder or a plain path. {_OF_THE_RUN}",
    ),
]
RunsCheckpointArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[VAULT[@STEP]]",
        help=f"The vault, and the step of a checkpoint in it, or best; without a step, the newest. {_OF_THE_RUN}",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
EntryOption = Annotated[
    int | None,
    typer.Option(
        "--entry", min=1, help="The checkpoint of this log entry, where several have the same step."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def span(option: str, low: float = 0.0, *, bare: bool = True) -> Callable[[str | float], float]:
    """Return what reads an option's time as seconds: such as ``90s`` or ``2min``.

    ``low``: the shortest, in seconds. ``bare``: whether a number alone will do, which is seconds then.
    """
    such = (
        "use a number of seconds, or such as 90s or 2min"
        if bare
        else "write a time with its unit, such as 20min or 90s"
    )

    def read(text: str | float) -> float:
        from vaultlayer_hf.base.spans import parse_seconds

        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not bare and isinstance(text, str) and not math.isnan(number):
            raise typer.BadParameter(f"{text} has no unit: {such}")
        try:
            seconds = parse_seconds(str(text) if math.isnan(number) else number, option)
        except errors.SettingsError as error:
            raise typer.BadParameter(f"{text}: {such}") from error
        if seconds < low:
            raise typer.BadParameter(f"{text} is too short")
        return seconds

    return read


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, (errors.SettingsError, errors.MissingExtraError)):
        return ExitCode.USAGE
    if isinstance(error, (errors.StoreError, errors.VaultUnreachableError)):
        return ExitCode.STORE
    if isinstance(error, errors.FencedError):
        return ExitCode.FENCED
    if isinstance(error, (errors.VaultLayerError, OSError)):  # OSError: of a file that the user has named
        return ExitCode.FAILED
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.BUG


def fail(code: ExitCode, message: str) -> typer.Exit:
    """Print one line to stderr and return the exception to raise."""
    typer.echo(f"vl: {' '.join(message.split())}", err=True)
    return typer.Exit(int(code))


@contextmanager
def one_line_errors(debug: bool, again: str = "") -> Iterator[None]:
    """Turn an error of the block into one line on stderr and its exit code; ``debug`` adds the traceback.

    ``again``: what the same command does once more behind an interruption, where that isn't all of it anew.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where an output that nobody reads any more can still be answered
    except typer.Exit:
        raise
    except BrokenPipeError as error:
        # As with `vl ls | head -1`: a program that SIGPIPE ends says nothing either. Python would at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(_BROKEN_PIPE) from error
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        code = exit_code(error)
        if code is ExitCode.INTERRUPTED:
            raise fail(code, "interrupted" + (f": {again}" if again else "")) from error
        if code is ExitCode.BUG:
            raise fail(code, f"unexpected {type(error).__name__}: {error} (--debug shows where)") from error
        raise fail(code, _text(error)) from error


def _text(error: BaseException) -> str:
    """Return an error for a person: of a store's, what is wrong and what to do, and a file only where one is meant."""
    if isinstance(error, errors.StoreError) and not error.key.startswith("data/"):
        return error.reason + (f": {error.hint}" if error.hint else "")
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error) or type(error).__name__


def on_terminal() -> bool:
    """Tell whether a person watches stderr: only then are progress bars shown."""
    return sys.stderr.isatty()


def when_text(time: str) -> str:
    """Return a time of the log for a person: to the second, in UTC."""
    return time.replace("T", " ")[:19]


def moment_text(seconds: float | None) -> str:
    """Return a moment for a person, in UTC to the second; empty for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
