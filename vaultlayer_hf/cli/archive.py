"""`vl archive`: start over in the same vault; what it holds is kept under a name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, VaultArgument, fail, one_line_errors
from vaultlayer_hf.cli.named_vault import no_vault, open_if_there, refuse_step

NameOption = Annotated[
    str | None, typer.Option("--name", help="Of the archive; else archive-1, archive-2, …")
]
UndoOption = Annotated[
    bool, typer.Option("--undo", help="Take an archive back: the one of --name, or the newest.")
]
AloneOption = Annotated[
    bool, typer.Option("--alone", help="No run is writing: for stores without create-if-absent.")
]


def archive(
    vault: VaultArgument,
    name: NameOption = None,
    undo: UndoOption = False,
    alone: AloneOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Start over: keep what the vault holds under a name, and have the next start begin at step 0.

    Nothing is copied or deleted, however much there is: one entry of the log does it. A run that is still writing is
    stopped. The archived checkpoints stay, and count as pinned, until `vl pin --remove` lets them go.

    Example: vl archive s3://bucket/my-run
    """
    with one_line_errors(debug):
        refuse_step(vault, "vl archive is about")
        opened = open_if_there(vault)
        if opened is None:
            raise fail(ExitCode.FAILED, no_vault(vault))
        with opened:
            made = opened.unarchive(name, alone=alone) if undo else opened.archive(name, alone=alone)
            state = opened.state
            newest = state.newest if state is not None else None
            steps = [one.step for one in opened.checkpoints() if one.archived == made]
            uri = opened.uri
        step = newest.step if newest is not None else 0
        if as_json:
            found = {"vault": uri, "name": made, "undone": undo, "archived": steps, "next_start_at": step}
            typer.echo(json.dumps(found, indent=2))
        elif undo:
            typer.echo(f"{made} is taken back: the next start goes on from step {step}")
        else:
            told = ", ".join(str(one) for one in steps)
            typer.echo(
                f"archived as {made}: step{'s' if len(steps) != 1 else ''} {told}. The next start begins at step 0; "
                f"`vl archive {vault} --undo` takes it back"
            )
