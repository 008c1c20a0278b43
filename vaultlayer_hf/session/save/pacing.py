"""When to save, asked at the end of each step, alike on all ranks and without a collective.

A cadence in steps is counted by each rank for itself. One by the clock is decided by rank 0 alone, whose word
reaches the others by ``Ranks.request`` at the same step. ``auto`` measures what saves cost, and asks ``cadence``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.spans import Cadence
from vaultlayer_hf.base.text import duration_text
from vaultlayer_hf.session.ranks import Ranks
from vaultlayer_hf.session.save.cadence import Interval, SaveCosts, choose_interval
from vaultlayer_hf.vault.log.history import VaultHistory

_THINK_EVERY = 10.0
"""Seconds between two looks of ``auto`` at what was measured."""
_MUCH = 1.5
"""Factor by which an interval has to change to be worth a line of the log."""
_REMEMBERED = 5
"""How many of the last saves count for what one costs."""


class Pacer:
    """Counts steps and seconds between saves. On the training thread of every rank.

    Args:
        cadence: what was asked for.
        ranks: the ranks that save together.
        events: where to say which cadence was chosen, and why.
        max_loss: seconds of training that a failure may cost, for ``auto``; or None.
        upload_seconds: returns how long an upload takes; 0 while that isn't known.
        history: returns what the attempts before this one have come to.
        clock: seconds, as time.monotonic.
    """

    def __init__(
        self,
        cadence: Cadence,
        ranks: Ranks,
        events: Events,
        *,
        max_loss: float | None = None,
        upload_seconds: Callable[[], float] = lambda: 0.0,
        history: Callable[[], VaultHistory] = VaultHistory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cadence = cadence
        self._ranks = ranks
        self._events = events
        self._max_loss = max_loss
        self._upload_seconds = upload_seconds
        self._history = history
        self._past = VaultHistory()
        self._clock = clock
        self._stalls: deque[float] = deque(maxlen=_REMEMBERED)
        self._beside: deque[float] = deque(maxlen=_REMEMBERED)
        # A save is the cadence's where the script doesn't save at that step by itself.
        self._next_is_cadences = self._newest_is_cadences = False
        self._cadence_stalled = 0.0  # seconds that these have kept training waiting since begin
        self._script_gaps: deque[float] = deque(maxlen=_REMEMBERED)
        self._script_last: float | None = None  # when the script's own last save ended
        self._interval = cadence.value
        self._said = 0.0
        self._known = False  # what was said rests on a measurement
        self._thought = 0.0
        self._step_seconds = 0.0
        self._begun = self._last = self._mark = self._step_end = clock()
        self.stalled = 0.0
        """Seconds that saves have kept training waiting since ``begin``."""
        self.last_save = 0.0
        """When the last save ended, on the clock; 0 before the first."""

    def begin(self) -> None:
        """Start the clock: training begins."""
        self._begun = self._last = self._mark = self._step_end = self._clock()
        self.stalled = self._cadence_stalled = 0.0
        self._next_is_cadences = self._newest_is_cadences = False
        self._script_last = None
        if self._cadence.kind == "auto":
            self._think()
        elif self._cadence.kind != "none":
            self._events.info(
                EventKind.CADENCE, f"a save {self._cadence}, as save_every says", every=str(self._cadence)
            )

    def mark(self) -> None:
        """Say that a save begins about now, if one does: what follows up to ``saved`` is its cost."""
        self._mark = self._clock()

    def saved(self, *, again: bool = False, beside: float | None = None) -> None:
        """Say that a save, whoever asked for it, is done and training goes on.

        Args:
            again: what was just done is a later part of the newest save, whose cost it adds to.
            beside: seconds that its files were written beside the training; None: they weren't.
        """
        if beside is not None:
            self._beside.append(beside)
        now = self._clock()
        cost, self._mark = now - self._mark, now
        self._step_end = now
        if again and self._stalls:
            self.waited(cost)
            return
        self._newest_is_cadences, self._next_is_cadences = self._next_is_cadences, False
        self._stalls.append(0.0)
        self.waited(cost)
        self._last = self.last_save = now
        if not self._newest_is_cadences:
            if self._script_last is not None:
                self._script_gaps.append(now - self._script_last)
            self._script_last = now
        if self._cadence.kind == "auto":
            self._think()

    def waited(self, seconds: float) -> None:
        """Say that training has waited for the newest save, at it or somewhere within the steps behind it."""
        self.stalled += seconds
        if self._newest_is_cadences:
            self._cadence_stalled += seconds
        if self._stalls:
            self._stalls[-1] += seconds

    @property
    def active(self) -> bool:
        """Whether a cadence was asked for."""
        return self._cadence.kind != "none"

    @property
    def stall(self) -> float | None:
        """Seconds that a save keeps training waiting; None before the first."""
        return sum(self._stalls) / len(self._stalls) if self._stalls else None

    @property
    def beside(self) -> float:
        """Seconds that a save's files are written beside the training; 0 where they aren't."""
        return sum(self._beside) / len(self._beside) if self._beside else 0.0

    @property
    def share(self) -> float:
        """Share of the time since ``begin`` that training has waited for saves."""
        return self.stalled / max(1e-9, self._clock() - self._begun)

    def due(self, step: int, *, saves: bool = False) -> bool:
        """Return whether to save at the end of ``step``. On all ranks at each step.

        ``saves``: the script saves at this step by itself.
        """
        self._next_is_cadences = False
        if self._cadence.kind == "none":
            return False
        if self._cadence.kind == "steps":
            return step % int(self._cadence.value) == 0
        now = self._clock()
        self._step_seconds += ((now - self._step_end) - self._step_seconds) / 4
        self._step_end = now
        wanted = False
        if self._ranks.rank == 0:
            if self._cadence.kind == "auto" and (
                now - self._thought > _THINK_EVERY or self._history() != self._past
            ):
                self._think()
            ahead = self._ranks.lag * self._step_seconds if self._ranks.world_size > 1 else 0.0
            wanted = not saves and now - self._last + min(ahead, self._interval / 2) >= self._interval
        if self._ranks.request(step, "save" if wanted else None, topic="save") is None:
            return False
        self._last = now  # should the save fail, the next one isn't due at once
        self._next_is_cadences = not saves
        return True

    def _think(self) -> None:
        """Choose the interval of ``auto`` from what is known now, and say so where it is another."""
        if self._ranks.rank != 0:
            return
        self._thought = self._clock()
        past = self._past = self._history()
        measured = SaveCosts(
            self.stall if self.stall is not None else past.stall,
            # What is written beside the training is as far from its commit as what is uploaded.
            (self._upload_seconds() or past.upload) + self.beside,
            past.failures,
            past.alive + self._thought - self._begun,
            self._cadence_stalled,
            self._last - self._begun,
            sum(self._script_gaps) / len(self._script_gaps) if self._script_gaps else 0.0,
        )
        decision = choose_interval(measured, self._max_loss)
        self._interval = decision.seconds
        known = measured.stall is not None
        if self._said and known == self._known and 1 / _MUCH < decision.seconds / self._said < _MUCH:
            return
        self._known = known
        self._say(decision)

    def _say(self, decision: Interval) -> None:
        self._said = decision.seconds
        self._events.info(
            EventKind.CADENCE,
            f"a save every {duration_text(decision.seconds)}, chosen by save_every='auto': {decision.reason}",
            seconds=decision.seconds,
            reason=decision.reason,
        )
