"""What has happened to a run: its attempts, commits and ends, and the figures that follow from them. Pure.

Put together by assemble.py. A figure that isn't known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Point = tuple[float, float]
"""Seconds since the epoch, and a value."""
NO_JOURNAL = "no `vl run` has kept a journal here: only the vault's log is known"
"""Why nobody knows how a run is."""
_RECENT = 10
"""Points of which a speed is taken."""


@dataclass(frozen=True)
class Training:
    """One of a run's trainings.

    Attributes:
        vault: its URI.
        step: the last one known of it, or None.
        over: whether it has come to its end.
    """

    vault: str
    step: int | None
    over: bool


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
        lost: steps that it trained and a later attempt trained again; None where that isn't known.
        watched: its steps were seen, not its commits alone.
        start: what its start took, up to its first step: names of stages and seconds, as far as they were seen.
        over: the training came to its end in it; the script may go on.
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
    lost: int | None = 0
    watched: bool = True
    start: tuple[tuple[str, float], ...] = ()
    over: bool = False

    @property
    def speed(self) -> float | None:
        """Steps per second, lately; None where there are too few points, or where it was set back."""
        recent = self.steps[-_RECENT:]
        if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
            return None
        steps = recent[-1][1] - recent[0][1]
        return steps / (recent[-1][0] - recent[0][0]) if steps >= 0 else None


@dataclass(frozen=True)
class RunStory:
    """A run as a whole, or one of its trainings where it has several; times in seconds since the epoch.

    Attributes:
        vault: its URI, or None.
        state: ``running``, ``restarting`` (between two attempts), ``finished``, ``stopped`` (`vl run` gave up or was
            told to) or ``unknown``.
        reason: why, in a sentence.
        attempts: oldest first; those of the `vl run` that lives at the end.
        commits: (time, step) of each commit of the log since the run began.
        earlier: the newest commit of the vault from before, or None.
        stalls: (time of a commit, seconds that saves held training up, on average of the last ones).
        max_steps: where training ends, or None.
        now: when this was put together.
        finished: the step at which the run ended, or None.
        trouble: what couldn't be read, in sentences.
        trackers: what names the run in each experiment tracker, as the newest checkpoint says.
        trainings: all of the run that have a vault, in the order in which they began; this one among them.
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
    trackers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    earlier: Point | None = None
    trainings: tuple[Training, ...] = ()

    @property
    def begin(self) -> float:
        """When the first attempt began."""
        return min((attempt.begin for attempt in self.attempts), default=self.now)

    @property
    def alive(self) -> bool:
        """Whether `vl run` is at it, be it between two attempts."""
        return self.state in ("running", "restarting")

    @property
    def end(self) -> float:
        """When the last thing happened: now, while the run lives."""
        if self.alive:
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
    def over(self) -> bool:
        """Whether the training is at its end, whatever the script does behind it."""
        return next((attempt.over for attempt in reversed(self.attempts) if attempt.step is not None), False)

    @property
    def exposure(self) -> tuple[float, int] | None:
        """Seconds and steps since the last commit, which a death now would cost, or the last one has put at stake.

        None before any attempt, and where nobody has seen what was trained behind the last commit.
        """
        if not self.attempts or (not self.attempts[-1].watched and self.finished is None):
            return None
        last_time, last_step = (
            self.commits[-1] if self.commits else (self.begin, self.attempts[0].began_at or 0)
        )
        steps = max(0, int((self.step or 0) - last_step))
        # Whatever else it did in that time, nothing of it can be lost.
        if not steps and (self.over or self.state != "running"):
            return 0.0, 0
        last = self.attempts[-1]
        until = last.end if self.state == "restarting" and last.end is not None else self.end
        return max(0.0, until - max(last_time, last.begin)), steps

    @property
    def lost_steps(self) -> int | None:
        """Steps that were trained twice; None where that isn't known."""
        lost = [attempt.lost for attempt in self.attempts if attempt.lost is not None]
        return sum(lost) if len(lost) == len(self.attempts) else None

    @property
    def goodput(self) -> float | None:
        """The share of the wall time in which steps were trained that count; None where it can't be told.

        Commits alone don't tell: nobody knows from them how long the steps ahead of the first one took.

        Of each attempt, the time between its first and its last step counts, less the share of steps that were
        trained again later; divided by the time from the first attempt's begin to the end. What starts, restores,
        waits and repeats lowers it, and so does whatever holds the steps up.
        """
        wall, good = self.end - self.begin, 0.0
        if (
            wall <= 0
            or self.lost_steps is None
            or not all(attempt.watched for attempt in self.attempts)
            or not any(len(attempt.steps) > 1 for attempt in self.attempts)
        ):
            return None
        for attempt in self.attempts:
            if len(attempt.steps) > 1:
                (first, low), (last, high) = attempt.steps[0], attempt.steps[-1]
                good += (last - first) * max(0.0, 1 - (attempt.lost or 0) / max(1.0, high - low))
        return min(1.0, good / wall)
