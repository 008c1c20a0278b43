"""`vl pin`: keep a checkpoint whatever the retention policy says; a run may be writing meanwhile."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vaultlayer_hf.cli.common import CheckpointArgument, DebugOption, EntryOption, JsonOption, one_line_errors
from vaultlayer_hf.cli.named_vault import open_at

RemoveOption = Annotated[bool, typer.Option("--remove", help="Let it go: retention decides again.")]
AloneOption = Annotated[
    bool, typer.Option("--alone", help="No run is writing: for stores without create-if-absent.")
]


def pin(
    checkpoint: CheckpointArgument,
    remove: RemoveOption = False,
    entry: EntryOption = None,
    alone: AloneOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Keep a checkpoint whatever retention says, also while a run is writing.

    Example: vl pin s3://bucket/my-run@500
    """
    with one_line_errors(debug), open_at(checkpoint, entry) as (vault, commit):
        changed = commit.pinned is remove
        vault.pin(commit, not remove, alone=alone)
        if as_json:
            found = {"vault": vault.uri, "step": commit.step, "number": commit.number}
            typer.echo(json.dumps({**found, "pinned": not remove, "changed": changed}, indent=2))
            return
        if remove:
            what = "no longer pinned" if changed else "it wasn't pinned"
        else:
            what = "pinned" if changed else "it was pinned already"
        typer.echo(f"step {commit.step} (log entry {commit.number}): {what}")
