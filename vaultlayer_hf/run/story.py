"""What has happened to a run: its attempts, commits and ends, put together from a run folder and a vault's log. Pure.

Either source may be missing. `vl run` writes the folder (journal.py); without it, the log of the vault still tells of
claims, commits and the end, and each claim counts as an attempt whose death nobody has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeGuard

from vaultlayer_hf.vault.log.entry import Entry

Point = tuple[float, float]
"""Seconds since the epoch, and a value."""
Notes = Mapping[int, Sequence[dict[str, Any]]]
_RECENT = 10
"""Points of which a speed is taken."""


@dataclass(frozen=True)
class AttemptStory:
    """One attempt at the training.

    Attributes:
        number: from 1.
        begin, end: seconds since the epoch; end is None while it lives, or where nobody saw it end.
        host: where it ran, or "".
        cause: what ended it, in a word; None while it lives or where it isn't known.
        detail: the same in a sentence.
        decision: what `vl run` decided then, and why.
        began_at: the step that it went on from; None where that isn't known.
        step: the last step known of it.
        steps: (time, step) as they were seen.
        losses: (step, loss) as they were logged.
        lost: steps that it trained and a later attempt trained again.
    """

    number: int
    begin: float
    end: float | None = None
    host: str = ""
    cause: str | None = None
    detail: str = ""
    decision: str = ""
    began_at: int | None = None
    step: int | None = None
    steps: tuple[Point, ...] = ()
    losses: tuple[Point, ...] = ()
    lost: int = 0

    @property
    def speed(self) -> float | None:
        """Steps per second, lately; None where there are too few points."""
        recent = self.steps[-_RECENT:]
        if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
            return None
        return (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])


@dataclass(frozen=True)
class RunStory:
    """A run as a whole; times in seconds since the epoch.

    Attributes:
        vault: its URI, or None.
        state: ``running``, ``finished``, ``stopped`` (`vl run` gave up or was told to) or ``unknown``.
        reason: why, in a sentence.
        attempts: oldest first.
        commits: (time, step) of each commit of the log.
        stalls: (time of a commit, seconds that saves held training up, on average of the last ones).
        max_steps: where training ends, or None.
        now: when this was put together.
        finished: the step at which the run ended, or None.
    """

    vault: str | None
    state: str
    reason: str
    attempts: tuple[AttemptStory, ...]
    commits: tuple[Point, ...]
    stalls: tuple[Point, ...]
    max_steps: int | None
    now: float
    finished: int | None = None
    trouble: tuple[str, ...] = field(default=())

    @property
    def begin(self) -> float:
        """When the first attempt began."""
        return self.attempts[0].begin if self.attempts else self.now

    @property
    def end(self) -> float:
        """When the last thing happened: now, while the run lives."""
        if self.state == "running":
            return self.now
        times = [
            attempt.end or (attempt.steps[-1][0] if attempt.steps else attempt.begin)
            for attempt in self.attempts
        ]
        return max([*times, *(time for time, _ in self.commits)], default=self.now)

    @property
    def step(self) -> int | None:
        """The last step known."""
        return next((attempt.step for attempt in reversed(self.attempts) if attempt.step is not None), None)

    @property
    def exposure(self) -> tuple[float, int] | None:
        """Seconds and steps since the last commit, which a death now would cost; None before any attempt."""
        if not self.attempts:
            return None
        last_time, last_step = (
            self.commits[-1] if self.commits else (self.begin, self.attempts[0].began_at or 0)
        )
        seconds = max(0.0, self.end - max(last_time, self.attempts[-1].begin))
        return seconds, max(0, int((self.step or 0) - last_step))

    @property
    def lost_steps(self) -> int:
        """Steps that were trained twice."""
        return sum(attempt.lost for attempt in self.attempts)

    @property
    def goodput(self) -> float | None:
        """The share of the wall time in which steps were trained that count; None where it can't be told.

        Of each attempt, the time between its first and its last step counts, less the share of steps that were
        trained again later; divided by the time from the first attempt's begin to the end. What starts, restores,
        waits and repeats lowers it, and so does whatever holds the steps up.
        """
        wall, good = self.end - self.begin, 0.0
        if wall <= 0 or not any(len(attempt.steps) > 1 for attempt in self.attempts):
            return None
        for attempt in self.attempts:
            if len(attempt.steps) > 1:
                (first, low), (last, high) = attempt.steps[0], attempt.steps[-1]
                good += (last - first) * max(0.0, 1 - attempt.lost / max(1.0, high - low))
        return min(1.0, good / wall)


def tell_story(
    journal: Sequence[dict[str, Any]],
    notes: Mapping[int, Notes],
    beats: Mapping[int, dict[str, Any]],
    history: Sequence[Entry],
    *,
    vault: str | None,
    alive: bool,
    now: float,
) -> RunStory:
    """Put a story together.

    Args:
        journal: lines of the run folder's journal.
        notes: of each attempt's ranks, by attempt and rank.
        beats: the last pulse of rank 0, by attempt.
        history: the vault's log.
        vault: its URI.
        alive: whether the journal's last `vl run` still is.
        now: seconds since the epoch.
    """
    commits = tuple(
        (moment, float(entry.state.commits[-1].step))
        for entry in history
        if entry.kind == "commit" and entry.state.commits and (moment := _seconds(entry.time)) is not None
    )
    finished = history[-1].state.finished if history else None
    starts = [line for line in journal if line["kind"] == "start"]
    began = [line["time"] for line in starts]
    if starts:
        attempts = [_attempt(line, journal, notes.get(line["attempt"], {}), beats) for line in starts]
        state, reason = _how_it_is(journal, alive)
        commits = tuple(point for point in commits if point[0] >= began[0] - 1)
    else:
        attempts = _from_claims(history)
        state, reason = ("finished", f"the run finished at step {finished}") if finished is not None else (
            "unknown", "no `vl run` has kept a journal here: only the vault's log is known",
        )  # fmt: skip
    steps = [
        note.get("max_steps")
        for ranks in notes.values()
        for note in ranks.get(0, ())
        if note["kind"] == "train"
    ]
    return RunStory(
        vault=vault,
        state=state,
        reason=reason,
        attempts=tuple(_with_losses(attempts)),
        commits=commits,
        stalls=tuple(point for point in _stalls(history) if not began or point[0] >= began[0] - 1),
        max_steps=steps[-1] if steps else None,
        now=now,
        finished=finished,
    )


def _attempt(
    start: dict[str, Any],
    journal: Sequence[dict[str, Any]],
    notes: Notes,
    beats: Mapping[int, dict[str, Any]],
) -> AttemptStory:
    number = start["attempt"]
    mine = {
        line["kind"]: line for line in journal if line["attempt"] == number and line["run"] == start["run"]
    }
    begin = next((line for line in journal if line["kind"] == "begin" and line["run"] == start["run"]), {})
    death, decision = mine.get("death", {}), mine.get("decision", {})
    lead = notes.get(0, ())
    steps = [(note["time"], note["step"]) for note in lead if note["kind"] in ("train", "log", "trained")]
    beat = beats.get(number, {})
    if isinstance(beat.get("step"), int):
        steps.append((beat["time"], beat["step"]))
    steps = sorted(point for point in steps if isinstance(point[1], int))
    logs = [note for note in lead if note["kind"] == "log" and isinstance(note.get("step"), int)]
    train = next((note for note in lead if note["kind"] == "train"), {})
    last = max([step for _, step in steps], default=None)
    ended = death.get("step") if isinstance(death.get("step"), int) else None
    return AttemptStory(
        number=number,
        begin=start["time"],
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
    )


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


def _how_it_is(journal: Sequence[dict[str, Any]], alive: bool) -> tuple[str, str]:
    run = next((line["run"] for line in reversed(journal) if line["kind"] == "begin"), None)
    end = next((line for line in reversed(journal) if line["kind"] == "end" and line["run"] == run), None)
    if end is not None:
        return ("finished" if end.get("code") == 0 else "stopped"), str(end.get("reason", ""))
    if alive:
        return "running", "vl run is alive"
    return "stopped", "vl run itself is gone without a word: it was killed, or its machine was lost"


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
                step=int(steps[-1][1]) if steps else None,
                steps=tuple(steps),
            )
        )
    return found


def _with_losses(attempts: Sequence[AttemptStory]) -> list[AttemptStory]:
    """Say of each attempt how many of its steps a later one trained again: those behind where the next went on."""
    found = []
    for attempt, after in zip(attempts, [*attempts[1:], None], strict=False):
        lost = 0
        if after is not None and attempt.step is not None and after.began_at is not None:
            lost = max(0, attempt.step - max(after.began_at, attempt.began_at or 0))
        found.append(replace(attempt, lost=lost))
    return found


def _seconds(time: str) -> float | None:
    """Return a log entry's time in seconds since the epoch; None where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
