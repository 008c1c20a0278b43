"""`vl ls`: the checkpoints of a vault, newest last. Reads only; creates nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base.text import size_text
from vaultlayer_hf.cli.common import (
    DebugOption,
    ExitCode,
    JsonOption,
    RunsVaultArgument,
    fail,
    one_line_errors,
)
from vaultlayer_hf.cli.named_vault import full_uri, no_step, no_vault, of_run_here, open_if_there, step_at
from vaultlayer_hf.cli.tables import print_table, put_table

if TYPE_CHECKING:
    from vaultlayer_hf.vault.log.entry import Commit
    from vaultlayer_hf.vault.reader.vault import Vault


MetricsOption = Annotated[
    bool,
    typer.Option(
        "--metrics",
        help="Also show the loss and the evaluation's metrics at each checkpoint; reads two small files of each.",
    ),
]
_ALL_COLUMNS, _WITHOUT_SIZE = 72, 56
"""Columns of a terminal from which on a list has all its columns; from which on it has sizes and whole times."""


def ls(
    vault: RunsVaultArgument = None,
    metrics: MetricsOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the checkpoints of a vault: step, when, size, state, token; of VAULT@STEP that step's alone.

    Exits with 1 where there is no vault.

    State: "newest" is where the next start resumes; "best" is what the Trainer names as its best so far; "pinned" is
    never retired; "left behind" was left when a later attempt resumed from an earlier step; "archived" is of a run that
    was put aside by `vl archive`.

    Example: vl ls s3://bucket/my-run --metrics
    """
    with one_line_errors(debug):
        vault = of_run_here(vault)
        opened = open_if_there(vault)
        step = step_at(opened, vault) if opened is not None else None
        found = describe(full_uri(vault), opened, step)
        if opened is not None and metrics:
            _add_figures(found, opened)
        if opened is not None:
            opened.close()
            if step is not None and not found["checkpoints"] and not as_json:
                raise fail(ExitCode.FAILED, no_step(opened, step))
        for damage in found["damage"]:
            typer.echo(f"vl: {damage}", err=True)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif found["exists"]:
            (_print_metrics if metrics else _print)(found)
        if not found["exists"]:
            raise fail(ExitCode.FAILED, no_vault(vault))
        if step is not None and not found["checkpoints"]:
            raise typer.Exit(int(ExitCode.FAILED))


def describe(uri: str, vault: Vault | None, step: int | None = None) -> dict[str, Any]:
    """Return what `vl ls --json` prints: the vault's state, and its live checkpoints in the log's order.

    Reads the log alone, so each checkpoint's ``metrics`` are empty.

    ``step``: of these only the checkpoints of one step.
    """
    commits = [one for one in (vault.checkpoints() if vault else []) if step in (None, one.step)]
    state = vault.state if vault else None
    newest = state.newest if state else None
    return {
        "vault": uri,
        "exists": state is not None,
        "token": state.token if state else None,
        "finished": state.finished if state else None,
        "damage": list(vault.damage) if vault else [],
        "checkpoints": [
            {
                "step": commit.step,
                "time": commit.time,
                "bytes": commit.bytes,
                "files": commit.files,
                "state": state_text(commit, newest, state.best_step if state else None),
                "token": commit.token,
                "number": commit.number,
                "folder": commit.folder,
                "metrics": {},
            }
            for commit in commits
        ],
    }


def state_text(commit: Commit, newest: Commit | None, best_step: int | None = None) -> str:
    """Return a checkpoint's state in the words of the help."""
    words = []
    if newest is not None and commit.number == newest.number:
        words.append("newest")
    if commit.step == best_step and not commit.left_behind:
        words.append("best")
    archived = commit.archived if commit.left_behind else ""
    if commit.pinned and not archived:
        words.append("pinned")
    if archived:
        words.append(f"archived as {archived}" + ("" if commit.pinned else ", let go"))
    elif commit.left_behind:
        words.append("left behind")
    return ", ".join(words) or "committed"


def _add_figures(found: dict[str, Any], vault: Vault) -> None:
    """Put each checkpoint's loss and metrics into what ``describe`` has returned. Raises StoreError."""
    from vaultlayer_hf.cli.figures import read_figures

    shown = {item["number"] for item in found["checkpoints"]}
    commits = [commit for commit in vault.checkpoints() if commit.number in shown]
    for item, figures in zip(found["checkpoints"], read_figures(vault, commits), strict=True):
        item["metrics"] = figures


def _print_metrics(found: dict[str, Any]) -> None:
    """Print a column for each loss or metric. What `vl ls` alone shows is left out first where it is narrow."""
    names = list(dict.fromkeys(name for item in found["checkpoints"] for name in item["metrics"]))
    if not found["checkpoints"]:
        _print(found)
        return
    rows = [
        (
            item["step"],
            item["time"].replace("T", " ")[:19],
            item["state"],
            *(number_text(item["metrics"].get(name)) for name in names),
        )
        for item in found["checkpoints"]
    ]
    print_table(
        ("step", "when (UTC)", "state", *names), rows, right=[0, *range(3, 3 + len(names))], spare=[1]
    )
    if not names:
        typer.echo("No loss or metric is in these checkpoints: none was logged before them.")
    _print_end(found)


def number_text(value: float | None) -> str:
    """Return a loss or metric as it is shown; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _print_end(found: dict[str, Any]) -> None:
    if found["finished"] is not None:
        typer.echo(f"The run has finished, at step {found['finished']}.")


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not found["checkpoints"]:
        console.print(f"The vault {found['vault']} holds no checkpoint.", soft_wrap=True, markup=False)
        return
    # A narrow terminal is shown the columns that matter whole, rather than all of them cut short.
    narrow, tiny = console.width < _ALL_COLUMNS, console.width < _WITHOUT_SIZE
    left_out = {"files", "token"} if narrow else set()
    left_out |= {"size"} if tiny else set()
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    headings = ("step", "when (UTC)", "size", "files", "state", "token")
    shown = [heading for heading in headings if heading not in left_out]
    for heading in shown:
        right = heading in ("step", "size", "files", "token")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "state")
    for item in found["checkpoints"]:
        when = item["time"].replace("T", " ")[5:16] if tiny else item["time"].replace("T", " ")[:19]
        cells = {**item, "when (UTC)": when, "size": size_text(item["bytes"])}
        table.add_row(
            *(str(cells[heading]) for heading in shown), style="bold" if "newest" in item["state"] else None
        )
    put_table(console, table)
    _print_end(found)
