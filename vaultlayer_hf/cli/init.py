"""`vl init`: put the integration into a script, as a diff that is explained, asked about, backed up and undone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.cli.common import DebugOption, ExitCode, JsonOption, fail, one_line_errors
from vaultlayer_hf.cli.mistyped import no_file
from vaultlayer_hf.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from vaultlayer_hf.run.insert.propose import Proposal, Unrecognised

ScriptArgument = Annotated[str, typer.Argument(metavar="SCRIPT", help="The training script, a Python file.")]
VaultOption = Annotated[
    str | None,
    typer.Option(
        metavar="VAULT",
        help="The vault to write into it: s3://bucket/prefix or a folder. Default: what VAULTLAYER_VAULT names at "
        "each start; else the folder vaults/NAME, which doesn't survive the loss of this machine.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Edit without asking.")]
UndoOption = Annotated[bool, typer.Option("--undo", help="Put the script back as it was, to the byte.")]


def init(
    script: ScriptArgument,
    vault: VaultOption = None,
    yes: YesOption = False,
    undo: UndoOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Put vaultlayer-hf into a training script: shows the diff, explains it, asks, keeps a backup.

    Knows scripts that make a Trainer, Accelerate loops and plain PyTorch loops. Where it doesn't recognise the
    loop it changes nothing and shows the lines to add. Without a terminal it edits only with --yes.

    Example: vl init train.py --vault s3://bucket/my-run
    """
    with one_line_errors(debug):
        if undo:
            _undo(script, as_json)
            return
        if not os.path.exists(script):
            raise no_file(script, ".py")
        from vaultlayer_hf.run.insert.propose import Unrecognised, propose

        found = propose(script, vault)
        if isinstance(found, Unrecognised):
            typer.echo(json.dumps(describe(found), indent=2) if as_json else unrecognised_text(found))
            raise typer.Exit(int(ExitCode.FAILED))
        if not as_json:
            show(found)
        if not found.hunks:
            if as_json:
                typer.echo(json.dumps(describe(found), indent=2))
            elif vault is not None:
                typer.echo(f"The vault is the one that it names: to have {vault}, change it in {script}.")
            return
        backup = offer(found, yes, can_ask=not as_json)
        if as_json:
            typer.echo(json.dumps(describe(found, backup), indent=2))
        if backup is None and not on_both_ends():
            raise fail(
                ExitCode.FAILED,
                f"{script} is as it was: there is no terminal to ask on (--yes edits without asking)",
            )


def offer(proposal: Proposal, yes: bool, can_ask: bool = True, err: bool = False) -> str | None:
    """Ask where a person is there, and edit; return the backup's path, or None where nothing was edited.

    ``err``: talk on stderr. Raises SettingsError.
    """
    from vaultlayer_hf.run.insert.apply import apply

    if not yes and not (
        can_ask and on_both_ends() and typer.confirm(f"Edit {proposal.path}?", default=False, err=err)
    ):
        return None
    backup = str(apply(proposal))
    if can_ask:
        typer.echo(f"{proposal.path} is edited. Back to how it was: vl init --undo {proposal.path}", err=err)
    return backup


def _has_a_loop(script: Path) -> bool:
    """Tell whether a script may train by itself: it goes backward somewhere. Half a second less than parsing it."""
    try:
        return b"backward" in script.read_bytes()
    except OSError:
        return True  # said by what reads it


def offer_before_run(
    script: str | os.PathLike[str], vault: str | None, yes: bool, say: Callable[[str], None]
) -> None:
    """Offer the edit of a script with a training loop of its own, which `vl run` can't reach without one.

    A script that makes a Trainer, uses vaultlayer_hf already or trains nothing is passed over in silence. Nothing
    here keeps the script from being run: what is in the way is said.

    Args:
        vault: what to write into it; None as in ``propose``.
        yes: edit without asking.
        say: tells a person one line.
    """
    if not _has_a_loop(Path(script)):
        return
    from vaultlayer_hf.run.insert.propose import Unrecognised, propose

    try:
        found = propose(script, vault)
        if isinstance(found, Unrecognised):
            if found.trains:
                say(unrecognised_text(found).rstrip())
        elif found.kind in ("accelerate", "loop"):
            if yes or on_both_ends():
                show(found, err=True)
            if offer(found, yes, err=True) is None:
                say(
                    f"{script} has a training loop of its own, and begins anew at each start: vl init {script} helps"
                )
    except (MissingExtraError, SettingsError) as error:
        say(str(error))


def on_both_ends() -> bool:
    """Tell whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show(proposal: Proposal, err: bool = False) -> None:
    """Print a proposal for a person, with colours on a terminal."""
    for line in proposal_lines(proposal):
        colour = {"+": "green", "-": "red", "#": "cyan"}.get(line[:1])
        typer.secho(line, fg=colour, err=err)


def proposal_lines(proposal: Proposal) -> list[str]:
    """Return a proposal as a person reads it: each hunk behind its explanations."""
    if not proposal.hunks:
        return [f"{proposal.path} uses vaultlayer_hf already: nothing to do."]
    lines = []
    for hunk in proposal.hunks:
        lines += [f"# line {hunk.line}: {hunk.why[0]}", *(f"# {why}" for why in hunk.why[1:]), *hunk.diff, ""]
    lines += [f"Note: {remark}" for remark in proposal.remarks]
    if proposal.vault and "://" not in proposal.vault:
        lines.append(
            f"Note: The vault {proposal.vault} is a folder of this machine, and lost with it; --vault s3://… isn't."
        )
    return lines


def unrecognised_text(found: Unrecognised) -> str:
    """Return for a person why nothing was changed, and the lines to add."""
    lines = "\n".join(f"    {line}" for line in found.lines)
    return f"{found.path} is left as it is: {found.reason}. What to add by hand:\n\n{lines}\n"


def describe(found: Proposal | Unrecognised, backup: str | None = None) -> dict[str, Any]:
    """Return what `vl init --json` prints."""
    from vaultlayer_hf.run.insert.propose import Unrecognised

    if isinstance(found, Unrecognised):
        return {
            "script": str(found.path),
            "kind": "unrecognised",
            "edited": False,
            "reason": found.reason,
            "lines": list(found.lines),
        }
    return {
        "script": str(found.path),
        "kind": found.kind,
        "edited": backup is not None,
        "backup": backup,
        "vault": found.vault or None,
        "hunks": [
            {"line": hunk.line, "why": list(hunk.why), "diff": list(hunk.diff)} for hunk in found.hunks
        ],
        "remarks": list(found.remarks),
    }


def _undo(script: str, as_json: bool) -> None:
    from vaultlayer_hf.run.insert.apply import undo

    undo(script)
    text = f"{script} is as it was before vl init."
    typer.echo(
        json.dumps({"script": script, "kind": "undone", "edited": True}, indent=2) if as_json else text
    )
