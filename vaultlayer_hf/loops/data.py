"""The loop's side of the place in the data: which pass, how many batches of it, and how to be there again.

A DataLoader is followed, as the Trainer's is. Of another loader that has a ``state_dict`` the position is what that
says; from any other one the batches that are done are fetched again, in the order that the random state of then makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.loader_places import NOT_NUMBERED, Known, LoaderPlaces
from vaultlayer_hf.loops.loader_ways import LoaderWays, length_of, set_epoch_of
from vaultlayer_hf.loops.pass_notices import OF_TWO_AT_ONCE, say_further_pass, say_given_up, say_tail
from vaultlayer_hf.loops.position_format import OF_LEFT_PASS, check_format, format_of
from vaultlayer_hf.loops.ways import LoaderPosition, Way, loader_position_from
from vaultlayer_hf.state.data.samplers import left_out, raise_counters
from vaultlayer_hf.state.random_state import put_random_state, take_random_state


class LoopData:
    """Where a loop is in its data.

    Attributes:
        passes: how many passes are behind it.
        batches: how many batches of the current pass it was given.
        left: whether the loop over epochs was left before its end.
        first: the first number of a loop over a ``range`` of epochs, as this run began it; None until it is known.
        under_way: whether a pass was begun that isn't over.
        in_step: whether a batch was given out since the last step was done.
        loops: how many epochs each of the script's loops over epochs had that are behind the current one.
        stopping: whether the run is about to end where it is.

    Args:
        events: where to tell what happens.
        pass_ended: called behind each pass.
    """

    def __init__(self, events: Events, pass_ended: Callable[[], None] = lambda: None) -> None:
        self._pass_ended = pass_ended
        self.passes = self.batches = 0
        self.left = self.in_step = self.stopping = False
        self.first: int | None = None
        self.loops: list[int] = []
        self._events = events
        self._ways = LoaderWays(events)
        self._way: Way | None = None
        self._current: Known | None = None  # the loader of the newest pass
        self._places = LoaderPlaces()
        self.under_way = False
        self._left_pass = False  # the current one, before its last batch: nothing of it is to do
        self._epoch: int | None = None  # that of ``begin_epoch``, while it is under way
        self._behind = 0  # passes of it that are over
        self._to_pass_over = 0  # of them, those that a resumed script still asks for
        self._opened = 0  # passes, in this process
        self._dropped = 0  # number of the one whose batches the loop has left
        self._asked = False  # for batches that aren't opened yet
        # Ahead of all passes of its epoch: a step was done there, and one that is done now was done before.
        self._stepped_ahead = self._again_ahead = False
        # How many batches the current pass has left out at its begin, and how many of them the loader of now doesn't.
        self._left_out = self._passed_over = 0
        # Of when the epoch began: the code ahead of its batches runs again behind a resume, and draws the same.
        self._epoch_random: dict[str, Any] | None = None
        # Of a checkpoint, until the pass that was under way is opened.
        self._kept: LoaderPosition | None = None
        self._number = NOT_NUMBERED  # its loader's
        self._random: dict[str, Any] = {}

    def on(self, rank: int, world_size: int) -> None:
        """Say which rank this process is, of how many."""
        self._ways.rank, self._ways.world_size = rank, world_size

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs, between two batches."""
        further = self._behind + self._to_pass_over if self.under_way else 0
        number, place = self._newest_place()
        others = self._places.others(number, place, self._ways.place_between)
        return {
            "format": format_of(
                several=bool(others or self.loops), further=further > 0, left=self._left_pass
            ),
            "passes": self._passes_behind(),
            "behind": further,
            "batches": self.batches,
            "left": self.left,
            "left_pass": self._left_pass,
            "left_out": self._left_out,
            "first": self.first,
            "loops": list(self.loops),
            "tail": ("stopped" if self.stopping else "saved") if self.in_tail else "",
            "dawn": self._epoch_random,
            "under_way": self.under_way,
            "stepped_ahead": self._stepped_ahead,
            "loader": number,
            "place": place.state_dict() if place is not None else None,
            "places": {one: other.state_dict() for one, other in others.items()},
        }

    def _passes_behind(self) -> int:
        """Return how many passes are behind the run, where each epoch is one, however many it has."""
        within = self._epoch if self._behind + self._to_pass_over else None
        return self.passes if within is None else within + self.in_tail

    def _newest_place(self) -> tuple[int, LoaderPosition | None]:
        """Return the number of the newest pass's loader, and the place in it."""
        if self._kept is not None:
            return self._number, self._kept
        if self._way is not None and self._current is not None:
            return self._places.number_of(self._current), self._ways.place_of(self._way)
        return self._places.newest, self._places.kept.get(self._places.newest)

    def load_state_dict(self, state: dict[str, Any], random: dict[str, Any] | None, written: int) -> None:
        """Be where the loop was, on as many ranks as have ``written`` it or on others.

        The next ``batches_of`` goes on from there, with the random state given; None: with that of now. Raises
        ResumeError.
        """
        check_format(state)
        self.passes, self.left, self._epoch_random = state["passes"], state["left"], state["dawn"]
        self.first, self.loops = state.get("first"), list(state.get("loops", ()))
        self.batches = state["batches"] * written // self._ways.world_size
        self._left_out = state.get("left_out", 0) * written // self._ways.world_size
        self.under_way = state["under_way"]
        self._left_pass = state.get("left_pass", state["format"] == OF_LEFT_PASS)
        self._to_pass_over = state.get("behind", 0)
        self._again_ahead = state.get("stepped_ahead", False) and not self.under_way
        self._number = state.get("loader", NOT_NUMBERED)
        others = {one: loader_position_from(place) for one, place in state.get("places", {}).items()}
        self._places = LoaderPlaces(others, self._number)
        place = loader_position_from(state["place"]) if state["place"] is not None else None
        self._kept = place if self.under_way else None
        if place is not None and not self.under_way:
            self._places.kept[self._number] = place
        self._random = random or take_random_state()
        if not self._ways.rank:
            say_tail(self._events, state.get("tail", ""))

    @property
    def at_end(self) -> bool:
        """Whether all batches of the current pass were given out, where their number is known, or it is being left."""
        if not self.under_way or self._way is None:
            return False
        return self._left_pass or self.batches + self._passed_over == length_of(self._way.loader)

    @property
    def in_tail(self) -> bool:
        """Whether an epoch is under way, and no pass of it: one is behind it, and perhaps all are."""
        return self._epoch is not None and not self.under_way and self._behind > 0

    def step_done(self) -> bool:
        """Note that a step is done; tell whether it was done before, in code of an epoch that a resume runs again."""
        self.in_step = False
        self._stepped_ahead |= self._epoch is not None and not self.under_way and not self._behind
        return self._epoch is not None and (self._kept is not None or self._again_ahead)

    def leave_pass(self) -> None:
        """Note that the loop is about to leave the current pass, though batches of it are left."""
        self._left_pass = self.under_way

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, or begin again the one that was under way: with the same random numbers."""
        self.passes = number
        self._epoch, self._behind, self._stepped_ahead = number, 0, False
        self._places.begin_epoch()
        if self._kept is None:  # what was under way before is given up
            self.under_way, self._to_pass_over = False, 0
        elif self._epoch_random is not None:
            put_random_state(self._epoch_random)
            return
        self._epoch_random = take_random_state()

    def end_epoch(self, number: int) -> None:
        """Be behind an epoch, whether or not it has gone through all of its batches."""
        if self._kept is not None or self._to_pass_over:
            self._give_up()
        elif self.under_way and self._way is not None:
            self._way.end()
        self.passes, self.batches, self.under_way, self._epoch_random = number + 1, 0, False, None
        self._epoch, self._behind, self._left_pass, self._again_ahead = None, 0, False, False
        self._pass_ended()

    def _give_up(self) -> None:
        """Go on behind the pass that was under way when the checkpoint was saved: the script hasn't come to it."""
        if self._kept is not None:
            self._places.kept[self._number] = self._kept
        self._kept, self._to_pass_over = None, 0
        if not self._ways.rank:
            say_given_up(self._events)

    def leave_epoch(self) -> None:
        """Note that the loop over epochs is left: nothing of its epoch is to do but what is left of a pass."""
        self.left = True
        if self._epoch is not None:
            self.passes = self._epoch + self.in_tail
        if not self.under_way:
            self._epoch, self._behind = None, 0

    def begin_loop(self) -> None:
        """Begin another loop over epochs: they are counted from here."""
        if self._kept is not None or self._to_pass_over:
            self._give_up()
        self.loops.append(self.passes - sum(self.loops))
        self.first = None

    @property
    def passes_over(self) -> bool:
        """Whether the next pass that is asked for is behind the run."""
        return bool(self._to_pass_over)

    def pass_over(self, loader: Iterable[Any]) -> bool:
        """Tell whether the pass that is asked for is behind the run, in the epoch that it goes on within."""
        if not self._to_pass_over:
            return False
        say_further_pass(self._events)
        self._of_epoch(loader)
        self._to_pass_over, self._behind = self._to_pass_over - 1, self._behind + 1
        return True

    def ask(self) -> None:
        """Note that the script has asked for the batches of a pass, which it may open or not."""
        self._asked = True

    @property
    def batches_done(self) -> int:
        """How many batches of the current pass are done, or of the one that the script has asked for last."""
        return 0 if self._asked and self._opened and self._dropped == self._opened else self.batches

    @property
    def of_now(self) -> tuple[int, int | None]:
        """What tells the current pass, or the current epoch where none is open, from another one."""
        return self._opened, self._epoch

    def behind(self, loader: Iterable[Any]) -> int:
        """Return how many batches of a loader the pass is behind that goes on next, with those that it left out."""
        goes_on = self._kept is not None and self.batches
        return self.batches + max(0, self._left_out - left_out(loader)) if goes_on else 0

    def name(self, loader: Iterable[Any]) -> None:
        """Take note of the loader of a pass that is behind the run, where each pass of the run is asked for."""
        self._places.of_run(loader)

    def batches_of(self, loader: Iterable[Any], number: int, *, set_epoch: bool = True) -> Iterator[Any]:
        """Return the batches of pass ``number``, or what is left of it; ``set_epoch``: samplers get that number.

        The loader is opened at once, as ``iter(loader)`` does it: with the random numbers of now.
        """
        known = self._places.of_run(loader) if set_epoch else self._of_epoch(loader)
        way = self._ways.way_to(loader, self._way)
        if self._kept is not None:
            self._places.go_on(known, loader, self._kept)
            self._passed_over = max(0, self._left_out - left_out(loader))
            batches = way.go_on(self._kept, self.batches + self._passed_over, self._random)
            if self._left_pass:  # what is drawn from here on is drawn behind it
                put_random_state(self._random)
                batches = iter(())
        else:
            self._behind += self._epoch is not None and self.under_way  # the pass before was left
            self._left_pass = False
            self.passes, self.batches = number, 0
            self._left_out, self._passed_over = left_out(loader), 0
            before = self._places.begin(known, loader, way.likeness)
            if before is not None:
                raise_counters(loader, before.between)
            if set_epoch:
                set_epoch_of(loader, number)
            batches = way.begin(before)
        self._way, self._current, self.under_way, self._kept = way, known, True, None
        self._opened, self._asked, self._again_ahead = self._opened + 1, False, False
        return self._given(way, batches, self._opened)

    def _of_epoch(self, loader: Iterable[Any]) -> Known:
        if self._epoch is None:  # each pass stands for itself
            self._places.begin_epoch()
        return self._places.of_epoch(loader)

    def _given(self, way: Way, batches: Iterator[Any], number: int) -> Iterator[Any]:
        for batch in batches:
            if number != self._opened:
                raise SettingsError(OF_TWO_AT_ONCE)
            self.batches += 1
            self.in_step = True
            way.given()
            self._ways.log_remarks(way)
            try:
                yield batch
            except GeneratorExit:
                self._dropped = number
                raise
        self._ways.log_remarks(way)
        self.in_step = False
        way.end()
        self.passes, self.batches, self.under_way, self._left_pass = self.passes + 1, 0, False, False
        self._behind += self._epoch is not None
        self._pass_ended()

    def leave(self) -> None:
        """Leave all loaders as they were."""
        self._ways.leave()
