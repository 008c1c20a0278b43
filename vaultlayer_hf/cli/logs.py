"""`vl logs`: what an attempt of `vl run` has written, or the entries of a vault's log in words. Reads only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaultlayer_hf.base import files
from vaultlayer_hf.cli.common import (
    DebugOption,
    ExitCode,
    JsonOption,
    fail,
    moment_text,
    one_line_errors,
    when_text,
)
from vaultlayer_hf.cli.gather import TargetArgument, find_target
from vaultlayer_hf.cli.jobs import named_job
from vaultlayer_hf.cli.living_run import living_run
from vaultlayer_hf.cli.named_vault import no_vault, open_if_there
from vaultlayer_hf.cli.run_folders import Target
from vaultlayer_hf.cli.tables import print_table
from vaultlayer_hf.run import journal
from vaultlayer_hf.vault.log.archive import archived_as, taken_back
from vaultlayer_hf.vault.log.origin import forked_from

if TYPE_CHECKING:
    from vaultlayer_hf.run.engines.jobs.base import Job
    from vaultlayer_hf.vault.log.entry import Entry

AttemptOption = Annotated[
    int | None, typer.Option("--attempt", min=1, help="Which attempt; without it, the last.")
]
LinesOption = Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last lines.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written later.")]
EventsOption = Annotated[
    bool,
    typer.Option(
        "--events",
        help="Every commit, deletion and trouble of an attempt, which its output has in few lines.",
    ),
]
_EVERY = 0.5


def logs(
    target: TargetArgument = None,
    attempt: AttemptOption = None,
    lines: LinesOption = None,
    follow: FollowOption = False,
    events: EventsOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print what an attempt has written; of a vault, the entries of its log.

    --follow goes on from attempt to attempt, until `vl run` has ended. Of a job that an engine has,
    such as slurm:4711, all that its nodes have written.

    Example: vl logs .vl --attempt 2
    """
    with one_line_errors(debug):
        found = find_target(target)
        if (
            found.job is not None
            and attempt is None
            and not as_json
            and not events
            and _is_wanted(target, found)
        ):
            _print_job(found.job, lines, follow)
            return
        if found.folder is None:
            given = {"--attempt": attempt is not None, "--follow": follow, "--events": events}
            if any(given.values()):
                option = next(name for name, is_given in given.items() if is_given)
                raise fail(
                    ExitCode.USAGE,
                    f"{option} is for the folder of a run, such as .vl, and {found.vault} is none: leave it out",
                )
            _print_log(found, lines, as_json)
            return
        numbers = journal.attempts(found.folder)
        if attempt is None:
            passed = _of_others(found.journal, _living(found.journal))
            mine = [number for number in numbers if number not in passed] or numbers
            attempt = mine[-1] if mine else 0
        if attempt not in numbers:
            told = ", ".join(map(str, numbers)) or "none"
            raise fail(ExitCode.FAILED, f"{found.folder} holds no attempt {attempt}; it holds: {told}")
        if events:
            if follow:
                raise fail(ExitCode.USAGE, "--events shows what has happened so far: leave out --follow")
            _print_events(found.folder, attempt, lines, as_json)
            return
        path = journal.attempt_folder(found.folder, attempt) / journal.OUTPUT
        text = _read(path)
        kept = text.splitlines(keepends=True)
        kept = kept[len(kept) - min(lines, len(kept)) :] if lines is not None else kept
        if as_json:
            stripped = [line.rstrip("\n") for line in kept]
            typer.echo(json.dumps({"attempt": attempt, "file": str(path), "lines": stripped}, indent=2))
            return
        sys.stdout.write("".join(kept))
        if follow:
            for more in _later(found.folder, attempt, len(text.encode())):
                sys.stdout.write(more)
                sys.stdout.flush()


def _print_events(folder: Path, attempt: int, lines: int | None, as_json: bool) -> None:
    notes = journal.read_notes(journal.attempt_folder(folder, attempt))
    told = [
        {
            "time": note["time"],
            "rank": rank,
            "event": str(note.get("event", "")),
            "text": str(note.get("message", "")),
        }
        for rank, its in notes.items()
        for note in its
        if note["kind"] == "vault"
    ]
    told.sort(key=lambda item: item["time"])
    told = told[len(told) - min(lines, len(told)) :] if lines is not None else told
    if as_json:
        typer.echo(json.dumps({"attempt": attempt, "events": told}, indent=2))
        return
    rows = [(moment_text(item["time"]), item["event"], item["text"]) for item in told]
    print_table(("when (UTC)", "event", "what"), rows, fold=[2])


def _is_wanted(text: str | None, found: Target) -> bool:
    """Tell whether the job's own log is meant: it was named, or it was started behind any `vl run` that can be seen."""
    begins = [line["time"] for line in found.journal if line["kind"] == "begin"]
    return named_job(text) is not None or (
        found.job is not None and max(begins, default=0.0) < found.job.time
    )


def _print_job(job: Job, lines: int | None, follow: bool) -> None:
    from vaultlayer_hf.run.engines.jobs.table import engine

    if lines is not None and not follow:
        kept = "".join(engine(job.engine).logs(job)).splitlines(keepends=True)
        sys.stdout.write("".join(kept[len(kept) - min(lines, len(kept)) :]))
        return
    for text in engine(job.engine).logs(job, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""


def _later(folder: Path, attempt: int, offset: int) -> Iterator[str]:
    """Yield what is written from now on, to this attempt and the next ones, until `vl run` has ended."""
    while True:
        lines = journal.read_journal(folder)
        living = _living(lines)
        passed = _of_others(lines, living)
        for number in [item for item in journal.attempts(folder) if item >= attempt and item not in passed]:
            if number > attempt:
                attempt, offset = number, 0
            path = journal.attempt_folder(folder, number) / journal.OUTPUT
            data = files.read_from(path, offset)
            offset += len(data)
            if data:
                yield data.decode(errors="replace")
        if living is None:
            return
        time.sleep(_EVERY)


def _living(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the line with which the `vl run` has begun that is followed; None: there is none that hasn't ended."""
    begins = [line for line in lines if line["kind"] == "begin"]
    # Of another machine's nothing is known but what it has written: the newest one may be loading its model.
    return living_run(lines, elsewhere=lambda begin: begin is begins[-1])


def _of_others(lines: Sequence[dict[str, Any]], living: dict[str, Any] | None) -> set[int]:
    """Return the attempts of `vl run`s that were started beside the one that lives."""
    if living is None:
        return set()
    since = [line for line in lines if line["kind"] == "start" and line["time"] >= living["time"]]
    return {line["attempt"] for line in since if line["run"] != living["run"]}


def _print_log(target: Target, lines: int | None, as_json: bool) -> None:
    vault = open_if_there(str(target.vault))
    if vault is None:
        raise fail(ExitCode.FAILED, no_vault(str(target.vault)))
    with vault:
        history = vault.history()
        for damage in dict.fromkeys(vault.damage):
            typer.echo(f"vl: {damage}", err=True)
    told = [describe(entry) for entry in history]
    told = told[len(told) - min(lines, len(told)) :] if lines is not None else told
    if as_json:
        typer.echo(json.dumps({"vault": target.vault, "entries": told}, indent=2))
        return
    rows = [(item["number"], when_text(item["time"]), item["kind"], item["text"]) for item in told]
    print_table(("entry", "when (UTC)", "kind", "what"), rows, right=[0], fold=[3], spare=[1])


def describe(entry: Entry) -> dict[str, Any]:
    """Return what `vl logs --json` prints of a log entry."""
    detail = entry.detail
    if entry.kind == "claim":
        text = f"token {entry.token}" + (f", on {detail['host']}" if "host" in detail else "")
        fork = forked_from(detail)
        text += f", a fork of {fork}" if fork is not None else ""
        text = f"archived as {name}; {text}" if (name := archived_as(detail)) is not None else text
        text = f"archive {name} taken back; {text}" if (name := taken_back(detail)) is not None else text
    elif entry.kind == "commit":
        commit = entry.state.commits[-1]
        text = f"step {commit.step}: {commit.files} files in {commit.folder}"
    elif entry.kind == "finish":
        text = f"at step {entry.state.finished}"
    elif entry.kind == "pin":
        text = f"step {detail.get('step')} " + ("pinned" if detail.get("pinned") else "let go")
    elif isinstance(detail.get("retired"), dict):
        text = "; ".join(f"entry {number}: {reason}" for number, reason in detail["retired"].items())
    else:
        text = f"deleted: {', '.join(map(str, detail.get('deleted', [])))}"
    return {
        "number": entry.number,
        "time": entry.time,
        "kind": entry.kind,
        "token": entry.token,
        "text": text,
    }
