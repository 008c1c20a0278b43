"""Gathers what is known of an attempt that has ended: its notes, its output, its exit status, the vault."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import VaultLayerError
from vaultlayer_hf.run.decide.cause import LAUNCHERS_ERROR, Death, Error
from vaultlayer_hf.run.engines.ranks import lost_ranks
from vaultlayer_hf.run.journal import read_beats, read_notes
from vaultlayer_hf.run.symptoms import means_full, means_memory, means_not_empty
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

_PATIENCE = 10.0
_EXIT = re.compile(r"exitcode\s*:\s*(-?\d+)")  # torchrun's summary of a worker's end
_TRACE = re.compile(r"^(?:\[rank(\d+)\]:)?\s?Traceback \(most recent call last\):\n", re.MULTILINE)
_RAISED = re.compile(
    r"^(?:\[rank\d+\]:)?\s?([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Full)\w*)(?:: (.*))?$"
)


def gather(
    folder: Path,
    status: int,
    output: str,
    *,
    vault: str | None,
    told: str | None = None,
    silent: float | None = None,
    oom_kills: int = 0,
    seconds: float = 0.0,
    pid: int = 0,
    left: Callable[[], Sequence[str]] = tuple,
) -> Death:
    """Return the facts of an attempt.

    Args:
        folder: the attempt's.
        status: what subprocess says: an exit code, or minus a signal's number.
        output: the end of what it wrote.
        vault: the URI that it was given; a script may have one of its own.
        told, silent, oom_kills, seconds: as in Death.
        pid: of the process that was started.
        left: returns what Death has under this name; called only where it is asked for.
    """
    code, name = _status(status)
    if told is None and (status == INTERRUPTED or name == "SIGINT"):
        told = "SIGINT"  # a person has told the program itself
    notes = read_notes(folder)
    trains = [line for lines in notes.values() for line in lines if line["kind"] == "train"]
    errors = [
        _error(rank, line) for rank, lines in notes.items() for line in lines if line["kind"] == "error"
    ]
    exits = [int(text) for text in _EXIT.findall(output)]
    preempted = code == PREEMPTED or PREEMPTED in exits
    if not errors and code not in (0, None):
        printed = last_traceback(output)
        errors = [printed] if printed is not None else []
        if not errors and not trains and means_not_empty("SystemExit", line := _last_line(output)):
            errors = [Error(0, "SystemExit", line, not_empty=True)]
    last = trains[-1] if trains else {}
    began_at = last.get("step") if trains else None
    steps = [beat["step"] for beat in read_beats(folder).values() if isinstance(beat.get("step"), int)]
    step = max(steps, default=None)
    said = [line for lines in notes.values() for line in lines if line["kind"] == "vault"]
    committed_here = [
        line["step"] for line in said if line.get("event") in ("commit", "adopt") and line.get("step")
    ]
    commits = committed_steps(last.get("vault") or vault)
    if commits is None:
        commits = sorted(set(committed_here))
    bad = [line["step"] for lines in notes.values() for line in lines if line["kind"] == "nonfinite"]
    return Death(
        code=code,
        signal=name,
        errors=tuple(errors),
        began=bool(trains),
        began_at=began_at,
        step=step if step is not None and step > (began_at or 0) else None,
        committed=commits[-1] if commits else None,
        committed_here=bool(committed_here),
        commits=tuple(commits),
        nonfinite=min(bad, default=None),
        silent=silent,
        told=told,
        oom_kills=oom_kills,
        lost=()
        if preempted
        else tuple(lost_ranks(notes, exited=0 if code is None else pid))
        or ((0,) if any(number < 0 for number in exits) else ()),
        preempted=preempted,
        micro_batch=int(last.get("micro_batch") or 0),
        accumulation=int(last.get("accumulation") or 0),
        seconds=seconds,
        vault=str(last.get("vault") or vault or ""),
        unfinished=any(map(_unfinished, notes.values())),
        elsewhere=_ranks_elsewhere(notes),
        left=left() if any(error.not_empty for error in errors) else (),
    )


def _ranks_elsewhere(notes: dict[int, list[dict[str, Any]]]) -> bool:
    """Tell whether the training has ranks of which nothing is noted here: another `vl run` has started them."""
    sizes = [
        int(line.get("world_size") or 1)
        for lines in notes.values()
        for line in lines
        if line["kind"] == "train"
    ]
    return max(sizes, default=0) > len(notes)


def _status(status: int) -> tuple[int | None, str | None]:
    number = -status if status < 0 else status - 128 if 128 < status < 128 + signal.NSIG else 0
    if not number:
        return status, None
    try:
        return None, signal.Signals(number).name  # 137 is how a shell says SIGKILL
    except ValueError:
        return (None, f"signal {number}") if status < 0 else (status, None)


def _error(rank: int, line: dict[str, Any]) -> Error:
    return Error(
        rank=rank,
        type=str(line.get("type", "")),
        message=str(line.get("message", "")),
        traceback=str(line.get("traceback", "")),
        memory=bool(line.get("memory")),
        full=bool(line.get("full")),
        not_empty=means_not_empty(str(line.get("type", "")), str(line.get("message", ""))),
        time=float(line.get("time", 0.0)),
        divide=int(line.get("divide") or 1),
    )


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def _unfinished(notes: list[dict[str, Any]]) -> bool:
    """Tell whether a rank's last word on uploads at its end is that they were given up."""
    said = [line for line in notes if line["kind"] == "vault"]
    words = [
        bool(line.get("unfinished"))
        for line in said
        if line.get("unfinished") or line.get("event") == "finish"
    ]
    return bool(words) and words[-1]


def committed_steps(vault: str | None) -> list[int] | None:
    """Return the steps of a vault's live checkpoints, oldest first; None where they can't be read now."""
    if not vault:
        return []
    from vaultlayer_hf.errors import ObjectNotFoundError
    from vaultlayer_hf.vault.reader.open import open_vault

    try:
        with open_vault(vault, patience=_PATIENCE) as opened:
            return [commit.step for commit in opened.checkpoints() if not commit.left_behind]
    except ObjectNotFoundError:
        return []
    except VaultLayerError:
        return None


def last_traceback(output: str) -> Error | None:
    """Return the last exception whose traceback stands in a program's output; None where there is none.

    Of a launcher that only says how its process has ended, and of that process's own, it is the latter.
    """
    found = [error for begin in _TRACE.finditer(output) if (error := _raised(begin, output[begin.end() :]))]
    own = [error for error in found if not error.type.endswith(LAUNCHERS_ERROR)]
    return next(reversed(own or found), None)


def _raised(begin: re.Match[str], text: str) -> Error | None:
    """Return the exception at the end of a traceback."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        raised = _RAISED.match(line)
        if raised:
            name, message = raised[1], raised[2] or ""
            text = begin[0] + "\n".join(lines[: number + 1]) + "\n"
            return Error(
                int(begin[1] or 0),
                name,
                message,
                text,
                means_memory(name, message),
                means_full(name, message),
                means_not_empty(name, message),
            )
    return None
