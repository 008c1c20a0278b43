"""Follows a DataLoader in place, and reopens a pass where a checkpoint left it.

An unbroken run: each pass is opened as torch opens it; what it begins with is noted, and ahead of each fetch the
random state; batches of worker processes bring their worker's state. Nothing is drawn and nothing is changed.

A pass that goes on: (1) the random state, samplers and data set as when the pass began; (2) the iterator is made, with
workers that start as they were left and get nothing to do yet; (3) the indices of what was trained on are left out,
or, where a data set knows neither indices nor its position, its batches are fetched again; (4) the worker whose turn
it is goes first; (5) what had been fetched ahead is fetched with the random state of then; the first fetch beyond that
with the state of the save.

One file, because what is noted of a pass and how it is opened again are two sides of one state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset

from vaultlayer_hf.state.data.completing import Completing
from vaultlayer_hf.state.data.feed import Anew, Emptied, Feed
from vaultlayer_hf.state.data.fetches import Fetches, pickled
from vaultlayer_hf.state.data.followed import (
    Opener,
    base_of,
    begin_following,
    end_following,
    workers_persist,
    workers_run,
)
from vaultlayer_hf.state.data.guard import Guard
from vaultlayer_hf.state.data.inner import steady_numbers
from vaultlayer_hf.state.data.opening import Opening, StatefulOpening, begun
from vaultlayer_hf.state.data.position import Moment, Position
from vaultlayer_hf.state.data.probed import why_distrusted
from vaultlayer_hf.state.data.samplers import (
    generators_only,
    has_own_class,
    looks_ahead,
    parts,
    put_sampler_weights,
    put_samplers,
    take_samplers,
)
from vaultlayer_hf.state.data.sources import source_of, unwrapped


class Follower:
    """Follows one loader.

    Args:
        loader: accelerate's, or a plain DataLoader. ``why_not`` has no objection to it.
        rank, world_size: of this process.
        guard: all that follows goes through it: at the first error of ours the loader is as it was.
        by_length: whether the loop takes as many batches as the loader says that it has; else as many as it gives.

    Attributes:
        guard: the same.
        unasked: whether batches are to be left out that the loop hasn't asked to leave out.
        stood_behind: whether the pass under way had no batch left when it was opened again.
        remarks: how a pass was reopened, in words for people, where that is worth a sentence; a seam logs them.
        doubts: why numbers may differ behind a pass that was reopened, in words; a seam warns of them.
    """

    def __init__(
        self, loader: Any, rank: int, world_size: int, guard: Guard, *, by_length: bool = True
    ) -> None:
        self.outer, self.base, self.guard = loader, base_of(loader), guard
        self._by_length = by_length
        self._expected = self._near = False
        self._pending: Position | None = None
        self._skip: int | None = None
        self._offset = 0
        self._left = self.unasked = self.stood_behind = False
        dispatches = type(loader).__name__ == "DataLoaderDispatcher"
        alone = not dispatches or bool(loader.split_batches)
        self._per_batch = (1 if alone else world_size) if rank == 0 or not dispatches else 0
        dataset = self.base.dataset
        self.iterable = isinstance(dataset, IterableDataset)
        stateful = hasattr(self.base, "load_state_dict") and hasattr(self.base, "state_dict")
        completes = dispatches and world_size > 1 and not getattr(loader, "_drop_last", False)
        source = source_of(dataset) if self.iterable and not completes and not stateful else None
        self._completing = Completing(loader) if completes and hasattr(loader, "slice_fn") else None
        self._fetches = Fetches(self.base, source, self._per_batch)
        self._opening = Opening(self.base, self.iterable, self._fetches, guard)
        self._stateful = StatefulOpening(self.base, self.iterable, self._fetches, guard) if stateful else None
        self.remarks, self.doubts = self._opening.remarks, self._opening.doubts
        self._at = Position(again=self.iterable and source is None and not stateful, passes=-1)
        self._foreign = workers_run(self.base)
        begin_following(self.base, self)
        guard.at_end(self.leave)

    def leave(self) -> None:
        """Stop following: the loader is as it was, once no persistent worker marks its batches any more."""
        self._left = True
        if self._completing is not None:
            self._completing.leave()
        if not self._opening.marks_persist:
            end_following(self.base)

    def hand_over(self) -> None:
        """Stop following, because another follower takes the loader over; that one starts workers of its own."""
        self._opening.drop_workers()
        end_following(self.base)

    # What the loop calls --------------------------------------------------------------------------------

    @property
    def doubt(self) -> str:
        """Why numbers may differ behind a resume all the same; empty where there is no reason."""
        if self._stateful and self.base.num_workers:
            return f"a {type(self.base).__name__} doesn't keep what is drawn in and for its worker processes"
        if self._stateful and self.iterable:
            return why_distrusted(unwrapped(self.base.dataset))
        why = "the script had started the loader's worker processes before, so what they draw isn't known"
        return why if self._foreign else ""

    @property
    def opens(self) -> bool:
        """Whether this rank opens the DataLoader itself: not where another one loads for it."""
        return self._per_batch > 0

    @property
    def after(self) -> Moment | None:
        """The random state behind the newest fetch; only noted while it isn't None."""
        return self._fetches.after

    @after.setter
    def after(self, moment: Moment | None) -> None:
        self._fetches.after = moment

    def resume(self, position: Position | None) -> None:
        """Go on from a position with the next pass."""
        self._pending = position
        self.unasked = (
            position is not None and position.batches > 0 and not (position.over or position.emptied)
        )

    def resume_near(self, position: Position, batches: int) -> None:
        """Go on behind so many batches of a position's pass, where only the pass's beginning can be used of it."""
        self._near = True
        self._pending = replace(
            position,
            batches=batches,
            drawn=batches * self._per_batch,
            birth=position.birth if self._stateful else position.begin,
            ahead=[],
            workers={},
            turn=0,
            loader=None,
            ended=[],
            order=None,
        )

    @property
    def owes_end(self) -> bool:
        """Whether it goes on behind the last batch of a pass that the loop hadn't ended when it was saved."""
        return self._pending is not None and self._pending.emptied and not self._pending.over

    def stand_at_end(self) -> None:
        """Be in the state of the save, where ``owes_end``: the loop is about to do what it does at a pass's end."""
        at = self._pending
        assert at is not None
        put_samplers(self.outer, generators_only(at.between))
        self._fetches.put(at.now)
        self._at = replace(at, ahead=[], again=self._at.again)

    def leave_end(self) -> None:
        """Note what the end of that pass has made of the state: the next one begins in it."""
        at = self._pending
        assert at is not None
        now, between = self._fetches.moment(), take_samplers(self.outer)
        self._pending = replace(at, over=True, now=now, between=between)

    def begin_epoch(self, *, set_since: bool = False) -> None:
        """Note that the loop is about to open a pass: one that is opened without this is somebody else's.

        What the data set counts is put back here, not when the pass is opened: the loop, or accelerate, may tell the
        data set meanwhile which pass this is. ``set_since``: it may have done so already.
        """
        self._expected, self.stood_behind = True, False
        if self._pending is not None and self._pending.over:
            at = self._pending
            # What counts moves within a pass; what a loop sets ahead of each pass doesn't.
            steady = steady_numbers(at.begin.inner, at.now.inner) if set_since else ()
            self._pending = replace(at, now=self._fetches.put_numbers(at.now, steady=steady))
        self._at.over = False
        if not self.opens:
            self._at.batches = 0

    def end_epoch(self) -> None:
        """Note that the loop has ended the pass, perhaps before its last batch."""
        self._at.over, self._expected = True, False
        if self._opening.marks_persist:
            self._opening.settle_workers()
        if self._pending is not None:
            self._pending = replace(self._pending, over=True)

    def batch_done(self) -> None:
        """Note that a batch was trained on, and take in what workers sent with it."""
        self._at.batches += 1
        self._settle()

    def _settle(self) -> int:
        """Take in what came with the batches that were trained on; return how many of the DataLoader's these are."""
        drawn = self._at.batches * self._per_batch
        self._at.turn = self._fetches.turn_behind(drawn, self._at.turn)
        return drawn

    @property
    def epoch(self) -> int | None:
        """The number of the pass, where the Trainer's own count is another; else None."""
        return self._at.passes if self._offset else None

    @property
    def ended(self) -> int:
        """How many passes the loop has ended, those of the runs before included."""
        return self._at.passes + self._at.over

    @property
    def batches(self) -> int:
        """How many batches of the pass were trained on."""
        return self._at.batches

    @property
    def workers_draw(self) -> bool:
        """Whether worker processes were seen to draw random numbers, or to hold a state of their own."""
        return self._fetches.workers_draw

    def skip(self, count: int) -> Any:
        """Leave out ``count`` batches of the pass that is about to be opened; return the loader to open."""
        at = self._pending
        self._skip, self.unasked = count, False
        if at is not None and at.emptied and not at.over and (self._by_length or not self._may_give_more):
            return Emptied(self.outer, lambda: self.guard.run(self._stand_behind, at))
        if at is not None and not self.opens:
            self._at = replace(at, ahead=[])
        return self.outer

    def position(self) -> Position:
        """Return where the loop is, between two steps. Raises what the parts raise that tell their state."""
        at, fetches = self._at, self._fetches
        drawn = self._settle()
        states = fetches.worker_states()
        return replace(
            at,
            drawn=drawn,
            emptied=at.emptied or self._gave_last(drawn),
            ahead=fetches.ahead_of(drawn),
            now=fetches.moment(),
            between=take_samplers(self.outer),
            workers=at.workers if at.again else states,
            loader=self.outer.state_dict() if self._stateful else None,
            ended=fetches.ended_within(drawn, workers=not at.again),
            order=self._opening.sum_of(drawn, at.order),
            first=self._completing.first if self._completing is not None else None,
        )

    # What the loader does -------------------------------------------------------------------------------

    def open(self, plain: Opener) -> Iterator[Any]:
        """Open a pass; ``plain`` does it as torch does. Where ours fails, the pass is opened by torch alone."""
        if not self._expected or self._left:
            return self._fetches.plain(plain()) if self._opening.marks_persist else plain()
        self._expected = False
        at, self._pending = self._pending, None
        skip, self._skip = self._skip, None
        anew = Anew(self.outer, plain, 0 if at is not None and at.over else (skip or 0) * self._per_batch)
        self.guard.run(anew.note)
        # A loop that leaves out no batch of the pass doesn't call ``skip``.
        asked = skip is not None or (self._near and at is not None and not at.batches)
        goes_on = at is not None and asked and not at.over
        if self._completing is not None:
            self._completing.begin(at.first if at is not None and goes_on else None)
        if at is not None and goes_on:
            feed = self.guard.run(self._go_on, at, plain, anew)
        else:
            feed = self.guard.run(self._begin, at, (skip or 0) if at is None else 0, plain, anew)
        return feed if feed is not None else self._fetches.plain(anew.open(0))

    def _begin(self, before: Position | None, skip: int, plain: Opener, anew: Anew) -> Feed:
        """Open a pass at its start, behind the position ``before`` where this process wasn't there yet."""
        fetches = self._fetches
        number = self._number(before)
        self._opening.settle_workers()
        if before is not None:
            put_samplers(self.outer, generators_only(before.between))
            fetches.put(before.now)
            fetches.workers = pickled(before.workers)
        begin = fetches.moment()
        goes_on = workers_persist(self.base) and (before is not None or self._at.passes >= 0)
        if not goes_on:
            fetches.workers = {}
        self._at = Position(
            passes=number,
            batches=skip,
            begin=begin,
            samplers=take_samplers(self.outer),
            birth=(before or self._at).birth if goes_on else begun(begin, self.base),
            again=self._at.again,
            workers=fetches.worker_states() if self._at.again else {},
        )
        left_out = skip * self._per_batch
        fetches.start(left_out)
        if self._stateful:
            batches = self._stateful.begin(self._at, before, plain)
            self._opening.fetch_again(batches, left_out)
        elif (before is not None and goes_on) or (left_out and not self.iterable):
            batches = self._reopen(self._at, plain, left_out)
        else:
            batches = self._opening.make(plain, {})
            self._opening.fetch_again(batches, left_out)
        return Feed(self._fetches, batches, [], None, self._emptied, self.guard, anew.open)

    def _number(self, before: Position | None) -> int:
        """Return the number of the pass that begins, and have the loader know it."""
        if before is not None:
            number = before.passes + 1
            self._note_offset(number)
        elif self._at.passes < 0:
            return getattr(self.outer, "iteration", None) or 0
        else:
            number = self._at.passes + 1
        self._set_epoch(number)
        return number

    def _note_offset(self, number: int) -> None:
        self._offset = number - getattr(self.outer, "iteration", number)

    def _set_epoch(self, number: int) -> None:
        if self._offset and callable(getattr(self.outer, "set_epoch", None)):
            self.outer.set_epoch(number)

    def _go_on(self, at: Position, plain: Opener, anew: Anew) -> Feed:
        """Open a pass where it was left."""
        self._note_offset(at.passes)
        self._set_epoch(at.passes)
        put_samplers(self.outer, at.samplers, began=True)
        # Whether batches are fetched again or indices left out may have changed since, and what is noted of the
        # workers is for that one way.
        same_way = at.again == self._at.again
        self._at = replace(at, again=self._at.again, emptied=False, ahead=[], loader=None)
        self._fetches.workers = pickled(at.workers if same_way else {})
        self._fetches.start(at.drawn, at.ended)
        near = self._near
        batches = self._reopen(at, plain, at.drawn)
        # The generators are now as the opening left them, and were otherwise at the save: a loader that keeps its
        # position has drawn its order and its workers' seed once more, and from any other one's generator the loop may
        # have drawn, too. Not so where accelerate's loaders had fetched a batch more than was opened here.
        if self._stateful or not (near or looks_ahead(self.outer)):
            put_samplers(self.outer, generators_only(at.between), began=True)
        put_sampler_weights(self.outer, at.between)  # the order no longer follows from them
        return Feed(self._fetches, batches, list(at.ahead), at.now, self._emptied, self.guard, anew.open)

    def _reopen(self, at: Position, plain: Opener, drawn: int) -> Iterator[Any]:
        near, self._near = self._near, False
        if self._stateful:
            batches = self._stateful.again(at, plain, near=near)
            self._opening.fetch_again(batches, at.drawn if near else 0)
            return batches
        near = near and self.iterable
        refetch = at.again or self._at.again or near
        return self._opening.again(self.outer, at, plain, drawn, near=near, refetch=refetch)

    @property
    def _may_give_more(self) -> bool:
        """Whether there may be batches behind the last one by the length, which a script's own sampler tells."""
        return not looks_ahead(self.outer) and any(map(has_own_class, parts(self.base).values()))

    def _stand_behind(self, at: Position) -> None:
        """Stand at the end of a pass that has no batch left."""
        self._note_offset(at.passes)
        self.stood_behind = True
        self._at, self._fetches.workers, self._expected = replace(at, ahead=[]), pickled(at.workers), False
        self._fetches.put(at.now)
        between = at.between
        # Workers and accelerate's loaders fetch ahead: by the last batch they have met the samplers' end.
        if not (self.iterable or self.base.num_workers or looks_ahead(self.outer)):
            self._opening.go_past_end(self.outer, at)
            between = take_samplers(self.outer)
        # The rest is there, and the loop may change it.
        self._pending = replace(at, now=Moment(source=at.now.source), between=between)

    def _gave_last(self, drawn: int) -> bool:
        """Tell whether the last batch was given out.

        accelerate's own loaders look a batch ahead and say so. Of any other its length tells: a Trainer takes as many
        batches as there are and never asks for one more within the step at whose end it saves.
        """
        if looks_ahead(self.outer):
            return bool(self.outer.end_of_dataloader)
        try:
            return not self.iterable and 0 < drawn == len(self.base)
        except Exception:  # its sampler has no length, and may say so as it likes
            return False

    def _emptied(self) -> None:
        """Note that the DataLoader has no more batches; accelerate's own loaders say so themselves."""
        if not looks_ahead(self.outer):
            self._at.emptied = True
