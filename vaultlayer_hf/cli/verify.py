"""`vl verify`: read every byte of a vault's checkpoints and compare the digests. Reads only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import bytes_bar, size_text
from vaultlayer_hf.cli.common import (
    DebugOption,
    ExitCode,
    JsonOption,
    RunsVaultArgument,
    fail,
    on_terminal,
    one_line_errors,
)
from vaultlayer_hf.cli.ls import state_text
from vaultlayer_hf.cli.named_vault import full_uri, no_step, no_vault, of_run_here, open_if_there, step_at
from vaultlayer_hf.cli.tables import say

if TYPE_CHECKING:
    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault

StepOption = Annotated[
    int | None, typer.Option("--step", min=0, help="Check only the checkpoint of this step.")
]
NewestOption = Annotated[bool, typer.Option("--newest", help="Check only the newest checkpoint.")]


def verify(
    vault: RunsVaultArgument = None,
    step: StepOption = None,
    newest: NewestOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check every file of every checkpoint against its digest.

    Of VAULT@STEP, or with --step or --newest, one checkpoint alone. Exits with 1 when a checkpoint is damaged or there
    is none to check.

    Example: vl verify s3://bucket/my-run --newest
    """
    with one_line_errors(debug):
        vault = of_run_here(vault)
        uri, opened = full_uri(vault), open_if_there(vault)
        named = step_at(opened, vault) if opened is not None else None
        if named is not None and (newest or step not in (None, named)):
            raise fail(ExitCode.USAGE, f"{vault} names a step: leave out --step and --newest")
        step = named if named is not None else step
        results = _check_all(opened, step, newest) if opened else []
        ok = bool(results) and all(result["ok"] for result in results)
        if as_json:
            typer.echo(json.dumps({"vault": uri, "ok": ok, "checkpoints": results}, indent=2))
        else:
            for result in results:
                _print(result)
        if opened is None:
            raise fail(ExitCode.FAILED, no_vault(vault))
        if not results:
            raise fail(
                ExitCode.FAILED,
                no_step(opened, step) if step is not None else f"{uri} holds no checkpoint yet",
            )
        if not ok:
            bad = ", ".join(str(result["step"]) for result in results if not result["ok"])
            raise fail(ExitCode.FAILED, f"damaged: the checkpoints of step {bad}")


def _check_all(vault: Vault, step: int | None, newest: bool) -> list[dict[str, Any]]:
    commits = vault.checkpoints()
    last = vault.state.newest if vault.state else None
    if step is not None:
        commits = [commit for commit in commits if commit.step == step]
    elif newest:
        commits = [last] if last else []
    with vault:
        return [
            {"step": commit.step, "state": state_text(commit, last), **check(vault, commit)}
            for commit in commits
        ]


def check(vault: Vault, commit: Commit) -> dict[str, Any]:
    """Return what `vl verify --json` prints of one checkpoint."""
    with bytes_bar(commit.bytes, f"step {commit.step}", shown=on_terminal(), leave=False) as bar:
        report = vault.verify(commit, progress=bar.update)
    return {"ok": report.ok, "bytes": report.bytes, "files": commit.files, "problems": list(report.problems)}


def _print(result: dict[str, Any]) -> None:
    # Of two runs that the vault has held there may be one step twice.
    state = f" ({result['state']})" if "archived" in result["state"] else ""
    what = f"step {result['step']}{state}"
    if result["ok"]:
        typer.echo(f"{what}: ok, {result['files']} files, {size_text(result['bytes'])}")
        return
    for problem in result["problems"]:
        say(f"{what}: DAMAGED, {problem}", style="red")
