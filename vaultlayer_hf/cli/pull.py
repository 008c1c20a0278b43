"""`vl pull`: copy a checkpoint out of a vault, verified; a pull that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.cli.common import (
    GOES_ON,
    CheckpointArgument,
    DebugOption,
    EntryOption,
    ExitCode,
    JsonOption,
    fail,
    on_terminal,
    one_line_errors,
)
from vaultlayer_hf.cli.named_vault import open_at

TargetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Where it is to appear; without one, ./checkpoint-STEP."),
]


def pull(
    checkpoint: CheckpointArgument,
    target: TargetArgument = None,
    entry: EntryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy a checkpoint out and verify it; start it again to go on where it was stopped.

    The folder appears whole or not at all, and is what the Trainer wrote: any tool can use it.

    Example: vl pull s3://bucket/my-run@500 ./checkpoint-500
    """
    with one_line_errors(debug, GOES_ON), open_at(checkpoint, entry) as (vault, commit):
        folder = (target or Path(f"checkpoint-{commit.step}")).absolute()
        with bytes_bar(commit.bytes, f"step {commit.step}", shown=on_terminal(), leave=False) as bar:
            try:
                fetched = vault.pull(commit, folder, bar.update)
            except OSError as error:  # it names a file of ours; a person knows the folder
                reason = error.strerror or error
                raise fail(
                    ExitCode.FAILED, f"{folder} can't be written: {reason}; name another folder"
                ) from error
        found = {
            "vault": vault.uri,
            "step": commit.step,
            "number": commit.number,
            "folder": str(folder),
            "bytes": commit.bytes,
            "files": commit.files,
            "fetched": fetched,
        }
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        here = (
            f", {size_text(commit.bytes - fetched)} of it was on this disk" if fetched < commit.bytes else ""
        )
        where = target or folder.name
        typer.echo(
            f"step {commit.step}: {where}, verified, {commit.files} files, {size_text(commit.bytes)}{here}"
        )
