"""`vl why`: why a checkpoint is, or is not, the one that the next start resumes from. Reads the whole log."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from vaultlayer_hf.cli.common import (
    DebugOption,
    ExitCode,
    JsonOption,
    RunsCheckpointArgument,
    fail,
    one_line_errors,
    when_text,
)
from vaultlayer_hf.cli.named_vault import no_vault, of_run_here, open_if_there, step_at
from vaultlayer_hf.cli.tables import print_table, say
from vaultlayer_hf.session.option_values import NONE

EntryOption = Annotated[
    int | None, typer.Option("--entry", min=1, help="The checkpoint of this log entry, retired or not.")
]


def why(
    checkpoint: RunsCheckpointArgument = None,
    entry: EntryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Explain why a checkpoint is, or is not, the one to resume, walking the log.

    Example: vl why s3://bucket/my-run@500
    """
    with one_line_errors(debug):
        found = explain_at(of_run_here(checkpoint), entry)
        for damage in found["damage"]:
            typer.echo(f"vl: {damage}", err=True)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _print(found)


def explain_at(address: str, number: int | None) -> dict[str, Any]:
    """Return what `vl why --json` prints."""
    from vaultlayer_hf.vault.reader.why import committed, explain

    vault = open_if_there(address)
    if vault is None:
        raise fail(ExitCode.FAILED, no_vault(address))
    with vault:
        step = step_at(vault, address)
        history = vault.history()
        commit = committed(history, step, number)
        if commit is None:
            raise fail(
                ExitCode.FAILED, _never(vault.uri, step, number, [item.folder for item in vault.leftovers()])
            )
        answer = explain(history, commit)
        state = history[-1].state
        problems, instead = [], None
        if answer.verdict == "newest":
            problems = vault.glance(commit)
            line = [
                item
                for item in reversed(state.commits)
                if not item.left_behind and item.number != commit.number
            ]
            if problems:
                instead = next((item.step for item in line if not vault.glance(item)), None)
        return {
            "vault": vault.uri,
            "step": commit.step,
            "number": commit.number,
            "resumes": answer.verdict == "newest" and not problems,
            "verdict": answer.verdict,
            "reason": answer.reason,
            "walk": [asdict(line) for line in answer.walk],
            "problems": problems,
            "instead": instead,
            "finished": state.finished,
            "damage": list(dict.fromkeys(vault.damage)),
        }


def _never(uri: str, step: int | None, number: int | None, orphans: list[str]) -> str:
    if number is not None:
        return f"log entry {number} of {uri} is no commit"
    if step is None:
        fork = os.environ.get("VAULTLAYER_FORK", "").strip()
        begins = (
            f"is a fork of {fork}, as VAULTLAYER_FORK says"
            if fork and fork.lower() not in NONE
            else "begins at step 0, unless it is a fork"
        )
        return f"{uri} holds no checkpoint, so the next start {begins}"
    left = [folder for folder in orphans if folder.rpartition("/")[2].split(".")[0] == f"checkpoint-{step}"]
    if left:
        return (
            f"step {step} was uploaded to {uri} and never committed, so it doesn't count: its writer was killed, "
            f"fenced or gave it up; what is left of it lies in {', '.join(left)}"
        )
    return f"no checkpoint of step {step} was ever committed to {uri}"


def _print(found: dict[str, Any]) -> None:
    reason = found["reason"]
    say(f"{reason[0].upper()}{reason[1:]}.")
    for problem in found["problems"]:
        say(f"But it isn't whole: {problem}.")
    if found["problems"]:
        way = (
            f"walks back to step {found['instead']}" if found["instead"] is not None else "ends with an error"
        )
        say(f"So the next start {way}.")
    if found["finished"] is not None:
        say(f"The run has finished at step {found['finished']}: a start trains nothing more.")
    elif found["resumes"]:
        say("A start on the machine that trained may go on from a newer snapshot on its own disk.")
    say("")
    rows = [(line["number"], when_text(line["time"]), line["text"]) for line in found["walk"]]
    print_table(("entry", "when (UTC)", "what"), rows, right=[0], fold=[2], spare=[1])
