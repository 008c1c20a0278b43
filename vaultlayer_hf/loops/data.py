"""The loop's side of the place in the data: which pass, how many batches of it, and how to be there again.

A DataLoader is followed, as the Trainer's is. Of another loader that has a ``state_dict`` the position is what that
says; from any other one the batches that are done are fetched again, in the order that the random state of then makes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.loops.ways import Followed, LoaderPosition, Other, Way, loader_position_from
from vaultlayer_hf.state.data.followed import follower_of, why_not, why_open
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.guard import Guard, no_longer
from vaultlayer_hf.state.data.placed import in_doubt
from vaultlayer_hf.state.data.samplers import left_out, parts, raise_counters
from vaultlayer_hf.state.random_state import put_random_state, take_random_state

FORMAT = 2
_OF_LEFT_PASS = 3
"""Of a position in a pass that was left before its last batch, which earlier versions would go on with."""
_OF_FURTHER_PASS = 4
"""Of a position in a second pass, or later, of one epoch: earlier versions would go on with the next epoch."""


class LoopData:
    """Where a loop is in its data.

    Attributes:
        passes: how many passes are behind it.
        batches: how many batches of the current pass it was given.
        left: whether the loop over epochs was left before its end.
        first: the first number of a loop over a ``range`` of epochs, as this run began it; None until it is known.
        in_step: whether a batch was given out since the last step was done.
        rank, world_size: of this process, by ``on``; known when the run goes on.

    Args:
        events: where to tell what happens.
        pass_ended: called behind each pass.
    """

    def __init__(self, events: Events, pass_ended: Callable[[], None] = lambda: None) -> None:
        self._pass_ended = pass_ended
        self.passes = 0
        self.batches = 0
        self.left = self.in_step = False
        self.first: int | None = None
        self.rank, self.world_size = 0, 1
        self._events = events
        self._way: Way | None = None
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._ended: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # why, by loader
        self._under_way = False
        self._left_pass = False  # the current one, before its last batch: nothing of it is to do
        self._epoch: int | None = None  # that of ``begin_epoch``, while it is under way
        self._behind = 0  # passes of it that are over
        self._to_pass_over = 0  # of them, those that a resumed script still asks for
        self._opened = 0  # passes, in this process
        # How many batches the current pass has left out at its begin, and how many of them the loader of now doesn't.
        self._left_out = self._passed_over = 0
        # Of when the epoch began: the code ahead of its batches runs again behind a resume, and draws the same.
        self._epoch_random: dict[str, Any] | None = None
        self._kept: LoaderPosition | None = None  # of a checkpoint, until a pass is opened
        self._random: dict[str, Any] = {}

    def on(self, rank: int, world_size: int) -> None:
        """Say which rank this process is, of how many."""
        self.rank, self.world_size = rank, world_size

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs, between two batches."""
        further = self._behind + self._to_pass_over if self._under_way else 0
        place = self._kept
        if place is None and self._way is not None:
            place = self._way.place()
            if place.why:
                self._events.warn_once(
                    "data", EventKind.NOTICE, f"the place in the data isn't kept: {place.why}"
                )
        return {
            "format": self._format(),
            "passes": self._epoch if further and self._epoch is not None else self.passes,
            "behind": further,
            "batches": self.batches,
            "left": self.left,
            "left_pass": self._left_pass,
            "left_out": self._left_out,
            "first": self.first,
            "dawn": self._epoch_random,
            "under_way": self._under_way,
            "place": place.state_dict() if place is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any], random: dict[str, Any] | None, written: int) -> None:
        """Be where the loop was, on as many ranks as have ``written`` it or on others.

        The next ``batches_of`` goes on from there, with the random state given; None: with that of now. Raises
        ResumeError.
        """
        if state.get("format") not in (FORMAT, _OF_LEFT_PASS, _OF_FURTHER_PASS):
            raise ResumeError(
                f"its place in the data is of format {state.get('format')}, and this version of vaultlayer-hf reads "
                f"formats {FORMAT} to {_OF_FURTHER_PASS}: go on with the version that wrote it"
            )
        self.passes, self.left, self._epoch_random = state["passes"], state["left"], state["dawn"]
        self.first = state.get("first")
        self.batches = state["batches"] * written // self.world_size
        self._left_out = state.get("left_out", 0) * written // self.world_size
        self._under_way = state["under_way"]
        self._left_pass = state.get("left_pass", state["format"] == _OF_LEFT_PASS)
        self._to_pass_over = state.get("behind", 0)
        self._kept = loader_position_from(state["place"]) if state["place"] is not None else None
        self._random = random or take_random_state()

    @property
    def at_end(self) -> bool:
        """Whether all batches of the current pass were given out, where their number is known, or it is being left."""
        try:
            given = self._way is not None and (
                self._left_pass or self.batches + self._passed_over == len(self._way.loader)
            )
            return self._under_way and given
        except TypeError:
            return False

    @property
    def under_way(self) -> bool:
        """Whether a pass was begun that isn't over."""
        return self._under_way

    def leave_pass(self) -> None:
        """Note that the loop is about to leave the current pass, though batches of it are left."""
        self._left_pass = self._under_way

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, or begin again the one that was under way: with the same random numbers."""
        self.passes = number
        self._epoch, self._behind = number, 0
        if self._kept is None:  # what was under way before is given up
            self._under_way = False
        if self._kept is not None and self._under_way and self._epoch_random is not None:
            put_random_state(self._epoch_random)
        else:
            self._epoch_random = take_random_state()

    def end_epoch(self, number: int) -> None:
        """Be behind an epoch, whether or not it has gone through all of its batches."""
        if self._under_way and self._way is not None:
            self._way.end()
        self.passes, self.batches, self._under_way, self._epoch_random = number + 1, 0, False, None
        self._epoch, self._behind = None, 0
        self._left_pass = False
        self._pass_ended()

    @property
    def passes_over(self) -> bool:
        """Whether the next pass that is asked for is behind the run."""
        return bool(self._to_pass_over)

    def pass_over(self) -> bool:
        """Tell whether the pass that is asked for is behind the run, in the epoch that it goes on within."""
        if not self._to_pass_over:
            return False
        self._events.warn_once(
            "further pass",
            EventKind.NOTICE,
            "this run goes on within an epoch behind the first of its passes through data: the code of the epoch ahead "
            "of the pass that was under way runs again",
        )
        self._to_pass_over -= 1
        self._behind += 1
        return True

    def _format(self) -> int:
        if self._under_way and self._behind + self._to_pass_over:
            return _OF_FURTHER_PASS
        return _OF_LEFT_PASS if self._left_pass else FORMAT

    def begin_pass(self) -> None:
        """Be at the start of a pass, unless a restored one is to go on."""
        if self._kept is None or not self._under_way:
            self.batches = 0

    def behind(self, loader: Iterable[Any]) -> int:
        """Return how many batches of a loader the current pass is behind, with those that it was begun without."""
        return self.batches + max(0, self._left_out - left_out(loader)) if self.batches else 0

    def batches_of(self, loader: Iterable[Any], number: int, *, set_epoch: bool = True) -> Iterator[Any]:
        """Return the batches of pass ``number``, or what is left of it; ``set_epoch``: samplers get that number.

        The loader is opened at once, as ``iter(loader)`` does it: with the random numbers of now.
        """
        way = self._way_of(loader)
        kept, goes_on = self._kept, self._kept is not None and self._under_way
        if kept is not None and goes_on:
            self._passed_over = max(0, self._left_out - left_out(loader))
            batches = way.go_on(kept, self.batches + self._passed_over, self._random)
            if self._left_pass:  # what is drawn from here on is drawn behind it
                put_random_state(self._random)
                batches = iter(())
        else:
            self._behind += self._epoch is not None and self._under_way  # the pass before was left
            self._left_pass = False
            self.passes, self.batches = number, 0
            self._left_out, self._passed_over = left_out(loader), 0
            if kept is not None:
                raise_counters(loader, kept.between)
            if set_epoch:
                _set_epoch(loader, number)
            batches = way.begin(kept)
        self._way, self._under_way, self._kept = way, True, None
        self._opened += 1
        return self._given(way, batches, self._opened)

    def _given(self, way: Way, batches: Iterator[Any], number: int) -> Iterator[Any]:
        for batch in batches:
            if number != self._opened:
                raise SettingsError(
                    "a pass through the data goes on behind another one that was begun within it by batches() or "
                    "steps(), and the place in two of them can't be kept: go through the inner loader itself, as for "
                    "an evaluation, or draw from it by Checkpointer.stream(loader)"
                )
            self.batches += 1
            self.in_step = True
            way.given()
            self._log_remarks(way)
            yield batch
        self._log_remarks(way)
        self.in_step = False
        way.end()
        self.passes, self.batches, self._under_way, self._left_pass = self.passes + 1, 0, False, False
        if self._epoch is not None:
            self._behind += 1
        self._pass_ended()

    def leave(self) -> None:
        """Leave all loaders as they were."""
        for follower in list(self._followers):
            follower.leave()

    def _way_of(self, loader: Any) -> Way:
        ended = self._ended.get(loader, "") if isinstance(loader, DataLoader) else ""
        why = ended or why_not(loader)
        follower = follower_of(loader)
        now = self._way
        same = isinstance(now, Other) if why else getattr(now, "follower", None) is follower
        if now is not None and now.loader is loader and same:
            return now
        if not why and (follower is None or follower not in self._followers or follower.outer is not loader):
            guard = Guard(lambda reason: self._stop(loader, reason))
            way = guard.run(self._followed, loader, guard)
            if way is not None:
                return way
            why = ended = guard.why
        if why:
            shown = getattr(loader, "iterable", None)  # of a bar
            return Other(loader, why if isinstance(loader, DataLoader) else why_open(shown), ended)
        return Followed(follower, self.world_size)

    def _followed(self, loader: Any, guard: Guard) -> Followed:
        follower = Follower(loader, self.rank, self.world_size, guard)
        way = Followed(follower, self.world_size)
        self._followers.add(follower)
        return way

    def _stop(self, loader: Any, why: str) -> None:
        """Note that a loader isn't followed any more, and say so once."""
        self._ended[loader] = why
        self._events.warn_once("data", EventKind.NOTICE, no_longer(why))

    def _log_remarks(self, way: Way) -> None:
        """Log, behind the first batch of a pass that went on, what there is to say of it."""
        doubts, notices = way.remarks()
        if doubts:
            self._events.warn(EventKind.INEXACT, in_doubt(doubts))
        for notice in notices:
            self._events.info(EventKind.NOTICE, notice)


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tell a plain loader's samplers which pass this is, as torch asks of scripts; accelerate's count themselves."""
    if hasattr(loader, "base_dataloader"):
        return
    for part in parts(loader).values():
        if part is not loader and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)
