"""Puts together what has happened to a run, from a run folder and a vault's log. Pure.

Either source may be missing. `vl run` writes the folder (journal.py); without it, the log of the vault still tells of
claims, commits and the end, and each claim counts as an attempt whose death nobody has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeGuard

from vaultlayer_hf.run.decide.decision import Action
from vaultlayer_hf.run.journal import Notes
from vaultlayer_hf.run.story import NO_JOURNAL, AttemptStory, Point, RunStory, Training
from vaultlayer_hf.run.trainings import Part, newest_of, of_training, parts_of, vaults_of
from vaultlayer_hf.vault.log.archive import since_archive
from vaultlayer_hf.vault.log.entry import Entry

_ARCHIVED = "what the vault held is archived: the next start begins at step 0"


def assemble(
    journal: Sequence[dict[str, Any]],
    notes: Mapping[int, Notes],
    beats: Mapping[int, dict[str, Any]],
    history: Sequence[Entry],
    *,
    vault: str | None,
    alive: bool,
    now: float,
) -> RunStory:
    """Return what has happened to a run: to one of its trainings, where it has several.

    Args:
        journal: lines of the run folder's journal.
        notes: of each attempt's ranks, by attempt and rank.
        beats: the last pulse of rank 0, by attempt.
        history: the vault's log; what was archived is another run's.
        vault: its URI; of several trainings, that one's. Where none has this vault, the newest training is told.
        alive: whether a `vl run` of the journal is: the newest one without an end.
        now: seconds since the epoch.
    """
    # A warm start that wasn't what a cold one would be is followed by a cold one, of the same attempt.
    starts = list(
        {(line["run"], line["attempt"]): line for line in journal if line["kind"] == "start"}.values()
    )
    run = _run_told(journal, alive)
    starts.sort(
        key=lambda line: line["run"] == run
    )  # behind those of one that was started later, and has ended
    whole, history = history, since_archive(history)
    archived = len(history) < len(whole) and all(entry.kind != "claim" for entry in history)
    if archived and starts:  # the run folder is that of the run which was archived
        history = since_archive(whole[: len(whole) - len(history) - 1])
    commits = tuple(
        (moment, float(entry.state.commits[-1].step))
        for entry in history
        if entry.kind == "commit" and entry.state.commits and (moment := _seconds(entry.time)) is not None
    )
    earlier = None
    finished = history[-1].state.finished if history else None
    parts = [parts_of(notes.get(line["attempt"], {}).get(0, ())) for line in starts]
    newest = newest_of(parts)
    told = vault if vault in vaults_of(parts) else newest

    def attempts_at(one: str | None) -> list[AttemptStory]:
        return [_attempt(starts[place], journal, part, beats) for place, part in of_training(parts, one)]

    attempts = attempts_at(told)
    began = [attempt.begin for attempt in attempts]
    if starts:
        state, reason = _how_it_is(journal, alive)
        if told != newest:
            state = "finished" if _is_over(attempts) else "stopped"
            reason = f"the run went on with {newest}" if newest else "the run went on with another training"
        reason += f"; {_ARCHIVED}" if archived else ""
        earlier = next((point for point in reversed(commits) if point[0] < min(began) - 1), None)
        commits = tuple(point for point in commits if point[0] >= min(began) - 1)
    else:
        attempts = _from_claims(history)
        state, reason = "unknown", NO_JOURNAL
        if finished is not None:
            state, reason = "finished", f"the run finished at step {finished}"
        elif archived:
            reason = _ARCHIVED
    steps = [
        note.get("max_steps")
        for _, part in of_training(parts, told)
        for note in (part.notes if part else ())
        if note["kind"] == "train"
    ]
    trainings = {one: attempts_at(one) for one in vaults_of(parts) if one}
    return RunStory(
        vault=vault,
        state=state,
        reason=reason,
        attempts=tuple(_with_lost(attempts)),
        commits=commits,
        stalls=tuple(point for point in _stalls(history) if not began or point[0] >= min(began) - 1),
        max_steps=steps[-1] if steps else None,
        now=now,
        finished=finished,
        earlier=earlier,
        trainings=tuple(Training(one, _last_step(mine), _is_over(mine)) for one, mine in trainings.items()),
    )


def _last_step(attempts: Sequence[AttemptStory]) -> int | None:
    return next((attempt.step for attempt in reversed(attempts) if attempt.step is not None), None)


def _is_over(attempts: Sequence[AttemptStory]) -> bool:
    return next((attempt.over for attempt in reversed(attempts) if attempt.step is not None), False)


def _attempt(
    start: dict[str, Any],
    journal: Sequence[dict[str, Any]],
    part: Part | None,
    beats: Mapping[int, dict[str, Any]],
) -> AttemptStory:
    number = start["attempt"]
    mine = {
        line["kind"]: line for line in journal if line["attempt"] == number and line["run"] == start["run"]
    }
    begin = next((line for line in journal if line["kind"] == "begin" and line["run"] == start["run"]), {})
    death, decision = mine.get("death", {}), mine.get("decision", {})
    beat = beats.get(number, {})
    lead = part.notes if part is not None else ()
    train = next((note for note in lead if note["kind"] == "train"), {})
    if part is not None and part.end is not None:  # the attempt's end and its pulse are another training's
        detail = "the script went on with another training"
        death, decision, beat = {"cause": "finished", "time": part.end, "detail": detail}, {}, {}
    steps = [
        (note["time"], note["step"])
        for note in lead
        if note["kind"] in ("train", "first-step", "log", "trained")
    ]
    # A pulse from before the training's begin is that of the training before it.
    if isinstance(beat.get("step"), int) and beat["time"] >= train.get("time", 0.0):
        steps.append((beat["time"], beat["step"]))
    steps = sorted(point for point in steps if isinstance(point[1], int))
    logs = [note for note in lead if note["kind"] == "log" and isinstance(note.get("step"), int)]
    last = max([step for _, step in steps], default=None)
    ended = death.get("step") if isinstance(death.get("step"), int) else None
    began = start["time"] if part is None or part.begin is None else part.begin
    return AttemptStory(
        number=number,
        begin=began,
        end=death.get("time"),
        host=str(begin.get("host", "")),
        cause=death.get("cause"),
        detail=str(death.get("detail", "")),
        decision=": ".join(str(decision[name]) for name in ("action", "reason") if decision.get(name)),
        began_at=train.get("step", death.get("began_at")),
        step=last if last is not None else ended,
        steps=tuple((moment, float(step)) for moment, step in steps),
        losses=tuple(
            (float(note["step"]), note["loss"]) for note in logs if isinstance(note.get("loss"), (int, float))
        ),
        start=_start(began, lead),
        over=part is not None and part.over,
    )


def _start(begin: float, lead: Sequence[dict[str, Any]]) -> tuple[tuple[str, float], ...]:
    """Return the stages of an attempt's start with the seconds of each.

    One whose end nobody saw is one with the next: where a loop of one's own claims isn't told, say.
    """
    first: dict[str, float] = {}
    for note in lead:
        what = note.get("event") if note["kind"] == "vault" else note["kind"]
        if _is_number(moment := note.get("time")):
            first.setdefault(str(what), float(moment))
    came = next((first[what] for what in ("restore", "adopt", "fresh") if what in first), None)
    ends = (
        ("Python, imports", first.get("hooked")),
        ("model, data", first.get("claim")),
        ("restore", came),
        ("loading, data skip", first.get("train")),
        ("first step", first.get("first-step")),
    )
    found, names, last = [], [], begin
    for name, end in ends:
        names.append(name)
        if end is not None and end >= last:
            found.append(("; ".join(names), end - last))
            names, last = [], end
    return tuple(found)


def _stalls(history: Sequence[Entry]) -> tuple[Point, ...]:
    """Return how long saves held training up, as each commit entry says."""
    found = []
    for entry in history:
        stall, moment = entry.detail.get("stall"), _seconds(entry.time)
        if entry.kind == "commit" and moment is not None and _is_number(stall):
            found.append((moment, float(stall)))
    return tuple(found)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _run_told(journal: Sequence[dict[str, Any]], alive: bool) -> str | None:
    """Return the `vl run` that is told of: the newest one, and where one is alive, the newest without an end."""
    begun = [line["run"] for line in journal if line["kind"] == "begin"]
    ended = {line["run"] for line in journal if line["kind"] == "end"}
    lives = [run for run in begun if run not in ended] if alive else []
    return next(reversed(lives or begun), None)


def _how_it_is(journal: Sequence[dict[str, Any]], alive: bool) -> tuple[str, str]:
    run = _run_told(journal, alive)
    mine = [line for line in journal if line["run"] == run]
    end = next((line for line in reversed(mine) if line["kind"] == "end"), None)
    if end is not None:
        return ("finished" if end.get("code") == 0 else "stopped"), str(end.get("reason", ""))
    if alive:
        death = _between_attempts(mine)
        if death is not None:
            return "restarting", f"attempt {death['attempt']}: {death.get('detail') or 'it has ended'}"
        return "running", "vl run is alive"
    return "stopped", "vl run itself is gone without a word: it was killed, or its machine was lost"


def _between_attempts(journal: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the death of the last attempt, where another one is to follow that hasn't begun; else None.

    What is written down of a death ends with what is decided about it.
    """
    told = [line for line in journal if line["kind"] in ("begin", "start", "death", "decision")]
    if not told or told[-1]["kind"] != "decision" or told[-1].get("action") != Action.RESTART.value:
        return None
    return next((line for line in reversed(told) if line["kind"] == "death"), None)


def _from_claims(history: Sequence[Entry]) -> list[AttemptStory]:
    claims = [
        (entry, moment) for entry in history if entry.kind == "claim" if (moment := _seconds(entry.time))
    ]
    found = []
    for number, (claim, begin) in enumerate(claims, 1):
        mine = [
            entry for entry in history if entry.token == claim.number and entry.kind in ("commit", "finish")
        ]
        times = [(moment, entry) for entry in mine if (moment := _seconds(entry.time)) is not None]
        steps = [
            (moment, float(entry.state.commits[-1].step)) for moment, entry in times if entry.kind == "commit"
        ]
        done = next((entry for _, entry in times if entry.kind == "finish"), None)
        host = claim.detail.get("host")
        found.append(
            AttemptStory(
                number=number,
                begin=begin,
                end=times[-1][0] if times and (done or number < len(claims)) else None,
                host=host if isinstance(host, str) else "",
                cause="finished" if done else None,
                lost=0 if number == len(claims) else None,
                watched=False,
                step=int(steps[-1][1]) if steps else None,
                steps=tuple(steps),
            )
        )
    return found


def _with_lost(attempts: Sequence[AttemptStory]) -> list[AttemptStory]:
    """Say of each attempt how many of its steps a later one trained again: those behind where the next went on.

    One that ended before it came to train has gone on from nowhere: the one behind it counts. Until one
    has come to train it isn't known.
    """
    found: list[AttemptStory] = []
    following: int | None = None  # where the next attempt that came to train went on
    for number, attempt in enumerate(reversed(attempts)):
        lost = attempt.lost
        if number and attempt.watched and attempt.step is not None:
            if following is not None:
                lost = max(0, attempt.step - max(following, attempt.began_at or 0))
            else:
                lost = 0 if attempt.over else None
        found.append(replace(attempt, lost=lost))
        following = attempt.began_at if attempt.began_at is not None else following
    return found[::-1]


def _seconds(time: str) -> float | None:
    """Return a log entry's time in seconds since the epoch; None where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
