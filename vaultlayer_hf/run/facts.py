"""Gathers what is known of an attempt that has ended: its notes, its output, its exit status, the vault."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vaultlayer_hf.errors import ObjectNotFoundError, VaultLayerError
from vaultlayer_hf.run.decide.cause import Death, Error
from vaultlayer_hf.run.engines.ranks import lost_ranks
from vaultlayer_hf.run.journal import Notes, notes_of, read_beats, read_notes
from vaultlayer_hf.run.printed import last_line, last_traceback, printed_exit_codes
from vaultlayer_hf.run.symptoms import means_not_empty
from vaultlayer_hf.run.trainings import is_over, since_newest_training
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED

_PATIENCE_SECONDS = 10.0
"""How long a vault that doesn't answer is tried; then what the ranks have noted stands for it."""


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
    shell: bool = False,
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
        shell: a shell stands between that and the ranks, so its exit code may not be theirs.
        left: returns what Death has under this name; called only where it is asked for.
    """
    code, name = _status(status)
    if told is None and (status == INTERRUPTED or name == "SIGINT"):
        told = "SIGINT"  # a person has told the program itself
    notes = read_notes(folder)
    train = next(reversed(notes_of(notes, "train")), None)
    began_at = train.get("step") if train is not None else None
    last = train or {}
    # What a rank has noted ahead of its newest training, its script has got over.
    newest = {rank: since_newest_training(lines) for rank, lines in notes.items()}
    errors = [
        _error(rank, line) for rank, lines in newest.items() for line in lines if line["kind"] == "error"
    ]
    if not errors and code not in (0, None):
        errors = _printed_errors(output, began=train is not None)
    exits = printed_exit_codes(output)
    over = any(map(is_over, notes.values()))
    ends = _ends(newest, pid) if shell and code == 0 and not over else {}
    preempted = code == PREEMPTED or PREEMPTED in exits or PREEMPTED in ends.values()
    lost: Sequence[int] = ()
    if not preempted:
        lost = tuple(lost_ranks(notes, exited=0 if code is None else pid))
        lost = lost or ((0,) if any(number < 0 for number in exits) else ())
    steps = [beat["step"] for beat in read_beats(folder).values() if isinstance(beat.get("step"), int)]
    step = max(steps, default=None)
    committed_here = [
        line["step"]
        for line in notes_of(notes, "vault")
        if line.get("event") in ("commit", "adopt") and line.get("step")
    ]
    commits = _committed_steps(last.get("vault") or vault)
    if commits is None:
        commits = sorted(set(committed_here))
    return Death(
        code=code,
        signal=name,
        errors=tuple(errors),
        began=train is not None,
        began_at=began_at,
        step=step if step is not None and step > (began_at or 0) else None,
        committed=commits[-1] if commits else None,
        committed_here=bool(committed_here),
        commits=tuple(commits),
        nonfinite=min((line["step"] for line in notes_of(newest, "nonfinite")), default=None),
        silent=silent,
        told=told,
        oom_kills=oom_kills,
        lost=lost,
        preempted=preempted,
        micro_batch=int(last.get("micro_batch") or 0),
        accumulation=int(last.get("accumulation") or 0),
        seconds=seconds,
        vault=str(last.get("vault") or vault or ""),
        unfinished=any(map(_unfinished, notes.values())),
        over=over,
        hidden=any(end != 0 for end in ends.values()),
        elsewhere=_ranks_elsewhere(notes),
        left=left() if any(error.not_empty for error in errors) else (),
    )


def _ends(newest: Notes, started: int) -> dict[int, int | None]:
    """Return with which exit code each rank that has trained has ended, as its notes tell; None: by a signal.

    A script that ends by itself, by sys.exit() or behind an error that it has caught, has ended well. So has one whose
    train() was left by a SystemExit, which it may have caught, too, but for that of a preemption: it has more to train.

    Args:
        newest: of each rank, since its newest training began.
        started: pid of the process whose exit code is known.
    """
    found: dict[int, int | None] = {}
    gone = lost_ranks(newest, exited=started)
    for rank, lines in newest.items():
        pid = lines[0].get("pid") if lines and lines[0]["kind"] == "train" else None
        if not pid or pid == started:
            continue
        last = {line["kind"]: line for line in lines if line.get("pid") == pid}
        if "uncaught" in last:
            found[rank] = 1
        elif "exit" in last:
            found[rank] = PREEMPTED if last["exit"].get("code") == PREEMPTED else 0
        else:
            found[rank] = None if rank in gone else 0
    return found


def _printed_errors(output: str, *, began: bool) -> list[Error]:
    """Return the error that a program has printed where no rank has noted one; nothing where it has printed none."""
    printed = last_traceback(output)
    if printed is not None:
        return [printed]
    line = last_line(output)
    # A script that wants an empty output folder may say so and exit without a traceback.
    if not began and means_not_empty("SystemExit", line):
        return [Error(0, "SystemExit", line, not_empty=True)]
    return []


def _ranks_elsewhere(notes: Notes) -> bool:
    """Tell whether the training has ranks of which nothing is noted here: another `vl run` has started them."""
    sizes = [int(line.get("world_size") or 1) for line in notes_of(notes, "train")]
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
        evaluating=bool(line.get("evaluating")),
    )


def _unfinished(notes: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a rank's last word on uploads at its end is that they were given up."""
    said = [line for line in notes if line["kind"] == "vault"]
    words = [
        bool(line.get("unfinished"))
        for line in said
        if line.get("unfinished") or line.get("event") == "finish"
    ]
    return bool(words) and words[-1]


def read_ahead(folder: Path, vault: str | None) -> None:
    """Read the vault of an attempt that trains, on a thread of its own, for nothing but that it has been done.

    The first look at a bucket imports its client and finds credentials, 0.2 s or more, for which a restart would wait.
    """
    train = next(reversed(notes_of(read_notes(folder), "train")), None) or {}

    def read() -> None:
        with contextlib.suppress(Exception):  # what is wrong is found where it is read in earnest
            _committed_steps(train.get("vault") or vault)

    threading.Thread(target=read, name="vl-read-ahead", daemon=True).start()


def _committed_steps(vault: str | None) -> list[int] | None:
    """Return the steps of a vault's live checkpoints, oldest first; None where they can't be read now."""
    if not vault:
        return []
    from vaultlayer_hf.vault.reader.open import open_vault

    try:
        with open_vault(vault, patience=_PATIENCE_SECONDS) as opened:
            return [commit.step for commit in opened.checkpoints() if not commit.left_behind]
    except ObjectNotFoundError:
        return []
    except VaultLayerError:
        return None
