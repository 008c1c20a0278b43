"""The run folder: what `vl run` and the ranks that it started have written down, for people and for commands.

    .vl/                          beside the script, or what VAULTLAYER_RUN_DIR names
        run.json                      {"program", "vault"}: whose folder this is. A run folder belongs to one program on
                                      one vault: the next one gets a folder like this inside it, NAME-DIGEST/
        journal.jsonl             one JSON object a line, appended by `vl run` alone, never rewritten
        attempt-0001/             one folder an attempt; numbers rise over all runs of the folder
            output.log            all that the attempt wrote to stdout and stderr, as it came
            rank-0.beat           the rank's pulse, below; one line, overwritten in place
            rank-0.jsonl          the rank's notes, below; appended by that rank
            rank-0.stacks         stacks of all its threads, where it was asked for them (a hang)

A line may be cut short by a crash: readers skip what doesn't parse. Every line of a journal and of notes has
``time`` (seconds since the epoch, UTC) and ``kind``; every line of the journal has ``run`` (an id of one call
of `vl run`) and ``attempt`` (0 where it belongs to none). Fields by kind of journal line:

    begin     format_version, command (list), program (script or module), cwd, vault (URI), vault_source (option,
              variable, config, default), pid, host, vl (version)
    start     pid, folder (of the attempt), divide (micro-batches are divided by this; 1: as the script has them),
              at (step to go on from where it isn't the newest, else null), warm (came out of a spare interpreter).
              Again, where a warm start has turned out to be unfit and the attempt was started once more, cold
    death     cause (a value of cause.Cause), code (exit code, null by a signal), signal (name or null), seconds
              (since start), step (last one trained or null), began_at (step that it went on from or null),
              committed (newest committed step or null), error (type and message, or ""), rank (whose, or null),
              detail (one sentence), traceback (text or "")
    decision  action (restart, stop, leave, done), reason (one sentence), wait (seconds), divide, at
    notice    topic, message: anything else that somebody should know
    end       code (exit code of `vl run`), reason, attempts, step, seconds

A rank's notes:

    hooked    pid, world_size, stacks (whether it answers a request for them): transformers.trainer was imported
              and the integration is in place
    train     seam (trainer or loop: whose layout its checkpoint folders have), output_dir, max_steps, step (that it
              goes on from), micro_batch, accumulation, world_size, vault
    log       step and what the Trainer logged (loss, learning_rate, ...)
    vault     event (kind of vaultlayer_hf.base.events), message, step (where it has one): commits, walk-backs, trouble
    nonfinite step (first one with a loss that is nan or inf)
    unfit     reason: this warm start wasn't what a cold one would have been, so the attempt was started again, cold
    cold      reason, pid: this rank wasn't forked by the process that has its imports done, so it starts cold
    error     type (qualified name), message, traceback, memory (bool: out of memory), full (bool: no space),
              divide (by what all nodes must divide their micro-batches; only where they differ), evaluating (true: in a
              Trainer's evaluation; only there)
    trained   step: train() has returned; over (bool): at the training's end
    uncaught  pid: the last error noted was caught by nobody, and ends this process
    exit      pid, code (of the SystemExit that has left train(), or null): a process that trained ends by itself

The pulse: ``{"time", "step", "phase", "beats"}``; beats counts signs of life of any kind (micro-batches, evaluation
steps, steps). Phases: ``start`` (until the first step), ``train``, ``between`` (logs, evaluation and saves between two
steps), ``loop`` (training in a loop of its own), ``end`` (the last uploads), ``done`` (train() has returned).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.secrets import redact

FORMAT_VERSION = 1
FOLDER_VARIABLE = "VAULTLAYER_RUN_DIR"
"""Names the run folder; the default is ``.vl`` beside the script."""
DEFAULT_FOLDER = ".vl"
JOURNAL = "journal.jsonl"
OWNER = "run.json"
OUTPUT = "output.log"
_ATTEMPT = re.compile(r"attempt-(\d+)")


def run_folder(script: str | os.PathLike[str] | None = None) -> Path:
    """Return the run folder: ``VAULTLAYER_RUN_DIR``, else ``.vl`` beside the script, or in the working directory."""
    named = os.environ.get(FOLDER_VARIABLE, "").strip()
    if named:
        return Path(named).absolute()
    beside = Path(script).absolute().parent if script is not None else Path.cwd()
    return beside / DEFAULT_FOLDER


def own_folder(home: Path, program: str, vault: str) -> Path:
    """Return the run folder of a program on a vault, made: ``home`` where it is free or theirs, else one inside it.

    So two programs of one folder, one after the other or at once, don't count each other's attempts. Raises OSError.
    """
    mine = (program, vault)
    digest = hashlib.sha256("\0".join(mine).encode()).hexdigest()[:8]
    # To be typed: a program may be `bash -c '…'`.
    name = re.sub(r"[^\w.]+", "-", Path(program).stem).strip("-")
    inside = home / f"{name or 'run'}-{digest}"
    for folder in (home, inside):
        folder.mkdir(parents=True, exist_ok=True)
        if owner_of(folder) is None:
            try:
                with open(folder / OWNER, "x") as file:
                    json.dump({"program": program, "vault": vault}, file)
            except FileExistsError:  # another `vl run` was quicker
                pass
        if owner_of(folder) == mine:
            return folder
    return inside


def owner_of(folder: Path) -> tuple[str, str] | None:
    """Return the program and the vault that a run folder belongs to; None: nobody's yet."""
    try:
        found = json.loads((folder / OWNER).read_text())
        return str(found["program"]), str(found["vault"])
    except FileNotFoundError:
        begins = [line for line in read_lines(folder / JOURNAL) if line["kind"] == "begin"]
        return (str(begins[-1].get("program")), str(begins[-1].get("vault"))) if begins else None
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""  # somebody's: not to be written into


def run_folders(home: Path) -> list[Path]:
    """Return the run folders in ``home``, itself among them, the one that was written to last at the end.

    Passed over: what can't be looked into, such as other users' folders in /scratch or /tmp.
    """
    found = []
    for path in (home, *home.glob("*/")):
        with suppress(OSError):
            status = (path / JOURNAL).stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime, path))
    return [path for _, path in sorted(found, key=lambda one: one[0])]


class Journal:
    """Appends lines to a run folder's journal, each in one write; made where it isn't there.

    Attributes:
        folder: the run folder.
        run: the id of this call of `vl run`.
        attempt: the number of the current attempt; 0 before the first.

    Raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.run = uuid.uuid4().hex[:12]
        self.attempt = 0

    def write(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Append one line and return it. A full disk is no reason to stop: the line is then only returned."""
        line = {"time": time.time(), "kind": kind, "run": self.run, "attempt": self.attempt, **fields}
        try:
            append(self.folder / JOURNAL, line)
        except OSError:
            pass
        return line

    def new_attempt(self) -> Path:
        """Make the folder of the next attempt and return it. Raises OSError."""
        number = max(attempts(self.folder), default=0) + 1
        while True:
            path = attempt_folder(self.folder, number)
            try:
                path.mkdir()
            except FileExistsError:  # another `vl run` in the same folder took that number
                number += 1
                continue
            self.attempt = number
            return path


def append(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line in one write. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, redact(json.dumps(line, default=str)).encode() + b"\n")
    finally:
        os.close(descriptor)


def attempt_folder(folder: Path, number: int) -> Path:
    """Return the folder of an attempt."""
    return folder / f"attempt-{number:04}"


def attempts(folder: Path) -> list[int]:
    """Return the numbers of the attempts that a run folder holds, in order."""
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)
    return sorted(int(match[1]) for name in names if (match := _ATTEMPT.fullmatch(name)))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal or of a rank's notes in order; nothing where there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "kind" in line:
            yield line


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Return all lines of a run folder's journal."""
    return list(read_lines(folder / JOURNAL))


Notes = Mapping[int, Sequence[dict[str, Any]]]
"""What each rank has noted, by rank, each rank's notes in the order in which it has written them."""


def read_notes(attempt: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the notes of an attempt's ranks."""
    return {rank: list(read_lines(path)) for rank, path in _of_ranks(attempt, "jsonl")}


def notes_of(notes: Notes, kind: str) -> list[dict[str, Any]]:
    """Return the notes of a kind, rank by rank. Pure."""
    return [line for lines in notes.values() for line in lines if line["kind"] == kind]


def read_beats(attempt: Path) -> dict[int, dict[str, Any]]:
    """Return the pulse of each rank of an attempt, by rank; a rank without one is left out."""
    found = {}
    for rank, path in _of_ranks(attempt, "beat"):
        try:
            beat = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        found[rank] = beat
    return found


def _of_ranks(attempt: Path, suffix: str) -> list[tuple[int, Path]]:
    found = []
    for path in attempt.glob(f"rank-*.{suffix}"):
        rank = path.name[len("rank-") : -len(suffix) - 1]
        if rank.isdigit():
            found.append((int(rank), path))
    return sorted(found)
