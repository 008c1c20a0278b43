"""Follows a DataLoader in place, and reopens a pass where a checkpoint left it.

An unbroken run: each pass is opened as torch opens it; what it begins with is noted, and ahead of each fetch the
random state; batches of worker processes bring their worker's state. Nothing is drawn and nothing is changed.

A pass that goes on: (1) the random state, samplers and data set as when the pass began; (2) the iterator is made, with
workers that start as they were left and get nothing to do yet; (3) the indices of what was trained on are left out,
or, where a data set knows neither indices nor its position, its batches are fetched again; (4) the worker whose turn
it is goes first; (5) what had been fetched ahead is fetched with the random state of then; the first fetch beyond that
with the state of the save.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import IterableDataset

from vaultlayer_hf.data.inner import Inner
from vaultlayer_hf.data.order import Order
from vaultlayer_hf.data.position import Moment, Position
from vaultlayer_hf.data.samplers import generators_only, put_samplers, take_samplers
from vaultlayer_hf.data.sources import source_of, unwrapped
from vaultlayer_hf.data.workers import LOST, Mark, Marking, Placing, packed, same, unpacked
from vaultlayer_hf.random_state import put_random_state, take_random_state

Opener = Callable[[], Iterator[Any]]


_classes: dict[type, type] = {}


def _followed(cls: Any) -> Any:
    """Return a class that a DataLoader of this class has while it is followed."""

    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807 - a method, of the class below
        follower: Follower = self.__dict__["_vaultlayer"]
        return follower.open(lambda: cls.__iter__(self))

    if cls not in _classes:
        _classes[cls] = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__iter__": __iter__})
    return _classes[cls]


def base_of(loader: Any) -> Any:
    """Return the torch DataLoader inside a loader, which may be the loader itself."""
    return getattr(loader, "base_dataloader", loader)


def follower_of(loader: Any) -> Follower | None:
    """Return who follows a loader, or None."""
    return getattr(base_of(loader), "__dict__", {}).get("_vaultlayer")


def why_not(loader: Any) -> str:
    """Return why a loader can't be followed; empty where it can."""
    base = base_of(loader)
    if not isinstance(base, torch.utils.data.DataLoader):
        return f"a {type(base).__name__} is no DataLoader of torch"
    if base.num_workers and not getattr(base, "in_order", True):
        return "with in_order=False batches come in the order in which workers happen to finish"
    return ""


class Follower:
    """Follows one loader.

    Args:
        loader: accelerate's, or a plain DataLoader. ``why_not`` has no objection to it.
        rank, world_size: of this process.

    Attributes:
        after: the random state behind the newest fetch; only noted while it isn't None.
        said: what there was to say of how a pass was reopened, in words.
    """

    def __init__(self, loader: Any, rank: int, world_size: int) -> None:
        self.outer, self.base = loader, base_of(loader)
        self.after: Moment | None = None
        self.said: list[str] = []
        self._expected = False
        self._pending: Position | None = None
        self._near = False
        self._skip: int | None = None
        self._offset = 0
        dispatches = type(loader).__name__ == "DataLoaderDispatcher"
        alone = not dispatches or bool(loader.split_batches)
        self._per_batch = (1 if alone else world_size) if rank == 0 or not dispatches else 0
        dataset = self.base.dataset
        self.iterable = isinstance(dataset, IterableDataset)
        self._stateful = hasattr(self.base, "load_state_dict") and hasattr(self.base, "state_dict")
        completes = dispatches and world_size > 1 and not getattr(loader, "_drop_last", False)
        self._source = source_of(dataset) if self.iterable and not completes and not self._stateful else None
        self._inner = Inner(dataset=unwrapped(dataset), collate=self.base.collate_fn)
        self._lost: Exception | None = None
        self._order: Order | None = None
        self._iterator: Any = None
        self._at = Position(again=self.iterable and self._source is None and not self._stateful, passes=-1)
        self._fetches: deque[tuple[int, Moment]] = deque(maxlen=2 * max(1, self._per_batch) + 2)
        self._marks: deque[tuple[int, Mark]] = deque()
        self._collate: Marking | None = None
        self._ended: list[int] = []  # of this pass
        self._last_fetch: int | None = None
        self._workers: dict[int, bytes] = {}
        self._fetched = 0
        self._marking: Any = None  # the persistent iterator whose workers mark their batches
        self._left = False
        former = follower_of(loader)
        if former is not None:
            former.hand_over()
        self.base._vaultlayer = self
        self.base.__class__ = _followed(type(self.base))

    def leave(self) -> None:
        """Stop following: the loader is as it was. Where persistent workers go on, their marks are taken off still."""
        self._left = True
        if not self._marks_persist():
            self._let_go()

    def hand_over(self) -> None:
        """Make way for another follower, with workers of its own."""
        if self._marks_persist():
            self.base._iterator = self._marking = None
        self._let_go()

    def _let_go(self) -> None:
        if self.base.__dict__.pop("_vaultlayer", None) is not None:
            self.base.__class__ = type(self.base).__bases__[0]

    def _marks_persist(self) -> bool:
        return self._marking is not None and self._marking is getattr(self.base, "_iterator", None)

    # What the loop tells --------------------------------------------------------------------------------

    @property
    def doubt(self) -> str:
        """Why numbers may differ behind a resume all the same; empty where there is no reason."""
        if self._stateful and self.base.num_workers:
            return f"a {type(self.base).__name__} doesn't keep what is drawn in and for its worker processes"
        return ""

    @property
    def opens(self) -> bool:
        """Whether this rank opens the DataLoader itself: not where another one loads for it."""
        return self._per_batch > 0

    def resume(self, position: Position | None) -> None:
        """Go on from a position with the next pass."""
        self._pending = position

    def resume_near(self, position: Position, batches: int) -> None:
        """Go on behind that many batches in the order of a position, where no more of it can be had."""
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

    def begin_epoch(self) -> None:
        """Expect that the loop opens a pass: others may look at the loader, too."""
        self._expected = True
        self._at.over = False
        if not self.opens:
            self._at.batches = 0

    def end_epoch(self) -> None:
        """Note that the loop has ended the pass, perhaps before its last batch."""
        self._at.over, self._expected = True, False
        if self._marks_persist():
            self._settle_workers()
        if self._pending is not None:
            self._pending = replace(self._pending, over=True)

    def batch_done(self) -> None:
        """Note that a batch was trained on."""
        self._at.batches += 1

    @property
    def epoch(self) -> int | None:
        """The number of the pass, where the Trainer's own count is another; else None."""
        return self._at.passes if self._offset else None

    @property
    def batches(self) -> int:
        """How many batches of the pass were trained on."""
        return self._at.batches

    @property
    def workers_draw(self) -> bool:
        """Whether worker processes were seen to draw random numbers, or to hold a state of their own."""
        return bool(self._workers) or any(mark.state for _, mark in self._marks)

    def skip(self, count: int) -> Any:
        """Leave out ``count`` batches of the pass that is about to be opened; return the loader to open."""
        at = self._pending
        self._skip = count
        if at is not None and at.emptied and not at.over:
            return Emptied(self, at)
        if at is not None and not self.opens:
            self._at = replace(at, ahead=[])
        return self.outer

    def stand_behind(self, at: Position) -> None:
        """Be at the end of a pass of which nothing is left."""
        told = getattr(self.outer, "iteration", None)
        self._offset = at.passes - told if told is not None else 0
        self._at, self._workers, self._expected = replace(at, ahead=[]), _pickled(at.workers), False
        self._put(at.now)
        self._pending = replace(at, now=replace(at.now, random=None))

    def position(self) -> Position:
        """Return where the loop is, between two steps. Raises what the parts raise that tell their state."""
        if self._lost is not None:
            raise self._lost
        at = self._at
        drawn = at.batches * self._per_batch
        turn = at.turn
        while self._marks and self._marks[0][0] < drawn:
            mark = self._marks.popleft()[1]
            turn = (mark.worker + 1) % max(1, self.base.num_workers)
            self._note_state(mark)
        at.turn = turn
        ended = [] if at.again else self._ended[:]
        if self._last_fetch is not None and self._last_fetch < drawn:
            ended.append(0)
        held = at.workers if at.again else {w: unpacked(state) for w, state in self._workers.items()}
        for told in held.values():
            if LOST in told:
                raise RuntimeError(told[LOST])
        return replace(
            at,
            drawn=drawn,
            emptied=at.emptied or bool(getattr(self.outer, "end_of_dataloader", False)),
            ahead=[moment for number, moment in self._fetches if number >= drawn],
            now=self._moment(),
            between=take_samplers(self.outer),
            workers=held,
            loader=self.outer.state_dict() if self._stateful else None,
            ended=ended,
            order=self._order.sum_of(drawn) if self._order is not None else at.order,
        )

    # What the loader does -------------------------------------------------------------------------------

    def open(self, plain: Opener) -> Iterator[Any]:
        """Open a pass; ``plain`` does it as torch does."""
        if not self._expected or self._left:
            return self._unmarked(plain()) if self._marks_persist() else plain()
        self._expected = False
        at, self._pending = self._pending, None
        skip, self._skip = self._skip, None
        if at is not None and skip is not None and not at.over:
            return self._go_on(at, plain)
        return self._begin(at, (skip or 0) if at is None else 0, plain)

    def _unmarked(self, batches: Iterator[Any]) -> Iterator[Any]:
        """A pass that isn't followed, by workers that mark their batches."""
        for batch in batches:
            if isinstance(batch, Mark):
                self._note_state(batch)
                batch = batch.batch
            yield batch

    def _note_state(self, mark: Mark) -> None:
        if mark.state is not None:
            self._workers[mark.worker] = mark.state
        if mark.ended:
            self._ended.append(mark.worker)

    def _begin(self, before: Position | None, skip: int, plain: Opener) -> Iterator[Any]:
        """Open a pass at its start, behind the position ``before`` where this process wasn't there yet."""
        number = self._number(before)
        self._settle_workers()
        if before is not None:
            put_samplers(self.outer, generators_only(before.between))
            self._put(before.now)
            self._workers = _pickled(before.workers)
        begin = self._moment()
        persists = bool(self.base.num_workers and self.base.persistent_workers)
        goes_on = persists and (before is not None or self._at.passes >= 0)
        birth = (before.birth if before is not None else self._at.birth) if goes_on else begin
        if persists and not goes_on and getattr(self.base, "_iterator", None) is not None:
            birth = (
                Moment()
            )  # the script has started the workers: what they began with can't be known any more
        if not goes_on:
            self._workers = {}
        self._at = Position(
            passes=number,
            batches=skip,
            begin=begin,
            samplers=take_samplers(self.outer),
            birth=birth,
            again=self._at.again,
            workers={w: unpacked(state) for w, state in self._workers.items()} if self._at.again else {},
        )
        left_out = skip * self._per_batch
        self._start(left_out)
        behind_old_workers = before is not None and goes_on
        if self._stateful:
            batches = self._open_loader(before, plain)
            self._fetch_again(batches, left_out)
        elif behind_old_workers or (left_out and not self.iterable):
            batches = self._reopen(self._at, plain, left_out)
        else:
            batches = self._make(plain, {})
            self._fetch_again(batches, left_out)
        return Feed(self, batches, [], None)

    def _settle_workers(self) -> None:
        """Take all that workers have told, and what persistent ones have fetched for a pass that was left.

        Torch would throw that away unseen, when the next pass begins.
        """
        for _, mark in self._marks:
            self._note_state(mark)
        self._marks.clear()
        if not self._marks_persist() or self._order is None:
            return
        self._order.held = True
        try:
            for batch in self._marking:
                if isinstance(batch, Mark):
                    self._note_state(batch)
        except Exception:  # of a batch that nobody wants
            pass
        finally:
            self._order.held = False

    def _number(self, before: Position | None) -> int:
        """Return the number of the pass that begins, and have the loader know it."""
        told = getattr(self.outer, "iteration", None)
        if before is not None:
            number = before.passes + 1
            self._offset = number - told if told is not None else 0
        elif self._at.passes < 0:
            return told or 0
        else:
            number = self._at.passes + 1
        self._tell_epoch(number)
        return number

    def _tell_epoch(self, number: int) -> None:
        if self._offset and callable(getattr(self.outer, "set_epoch", None)):
            self.outer.set_epoch(number)

    def _go_on(self, at: Position, plain: Opener) -> Iterator[Any]:
        """Open a pass where it was left."""
        told = getattr(self.outer, "iteration", None)
        self._offset = at.passes - told if told is not None else 0
        self._tell_epoch(at.passes)
        put_samplers(self.outer, at.samplers)
        self._at = replace(at, again=self._at.again, emptied=False, ahead=[], loader=None)
        self._workers = _pickled(at.workers)
        self._start(at.drawn)
        self._ended = at.ended[:]
        batches = self._put_loader(at, plain) if self._stateful else self._reopen(at, plain, at.drawn)
        return Feed(self, batches, list(at.ahead), at.now)

    def _reopen(self, at: Position, plain: Opener, drawn: int) -> Iterator[Any]:
        """Make the iterator as it was when the pass began, and go past ``drawn`` batches."""
        near, self._near = self._near and self.iterable, False
        again = self._at.again or near
        if not self.base.num_workers:
            self._put(at.begin)
            if self._source is not None and not near:
                source = (at.ahead[0] if at.ahead else at.now).source
                if drawn and source is not None:
                    self._source.load_state_dict(source)
            batches = self._make(plain, {})
            if self._order is not None and not self.iterable:
                self._leave_out(drawn, at.order)
            if at.ended and self._source is not None:
                return iter(())
        else:
            self.base._iterator = None  # workers that the script has started are others than then
            self._put(at.birth)
            batches = self._make(plain, self._workers, held=True, ended=at.ended)
            # Parts of torch's iterator that have no public name: hence the checks that are off.
            if not same(asdict(at.birth), asdict(at.begin)):
                self._put(at.begin)
                batches._sampler_iter = iter(self._order)  # type: ignore[attr-defined,arg-type]
            self._leave_out(0 if self.iterable else drawn, at.order)
            if not again:
                for _ in range(at.turn):
                    next(batches._worker_queue_idx_cycle)  # type: ignore[attr-defined]
            for _ in range(self.base.prefetch_factor * self.base.num_workers):
                batches._try_put_index()  # type: ignore[attr-defined]
        if again:
            self._fetch_again(batches, drawn)
        return batches

    # Of a loader that keeps its position itself, only what this process draws is ours. Its order may be drawn when it
    # is opened, or by its first fetch, so the pass has two beginnings: ``birth`` and, behind the opening, ``begin``.

    def _open_loader(self, before: Position | None, plain: Opener) -> Iterator[Any]:
        """Open a pass of such a loader at its start."""
        self._at.birth = self._at.begin
        tells = self.iterable and hasattr(self.base.dataset, "load_state_dict")
        if before is not None:
            self._forget(before.loader if tells else None)
        batches = plain()
        if before is not None and tells:  # opened twice: once at its end, once anew
            self._put(self._at.birth)
            torch.empty((), dtype=torch.int64).random_(generator=self.base.generator)
        if not self.base.num_workers:
            self._at.begin = self._moment()
        return batches

    def _put_loader(self, at: Position, plain: Opener) -> Iterator[Any]:
        """Open a pass of such a loader where it was left."""
        near, self._near = self._near, False
        self._put(at.birth)
        self._forget(None if near else at.loader)
        batches: Any = plain()
        if not self.base.num_workers:
            self._put(at.begin)
            if isinstance(getattr(batches, "_sampler_iter", None), islice):  # it has drawn nothing yet
                first = list(islice(batches._sampler_iter, 1))
                batches._sampler_iter = chain(first, batches._sampler_iter)
        if near:
            self._fetch_again(batches, at.drawn)
        opened: Iterator[Any] = batches
        return opened

    def _forget(self, state: Any) -> None:
        """Have such a loader go on from another state, or from none, whatever accelerate has given it."""
        if hasattr(self.base, "next_iter_state"):
            self.base._iterator = self.base.next_iter_state = None
            self.base._initial_iter_for_state_dict = False
        if state:
            self.base.load_state_dict(state)

    def _leave_out(self, count: int, order: str | None) -> None:
        assert self._order is not None
        self._order.leave_out(count)
        if order is not None and count and self._order.sum_of(count) != order:
            self.said.append("the data's order isn't the one that it was written with")

    def _fetch_again(self, batches: Iterator[Any], count: int) -> None:
        if count:
            self.said.append(
                f"{count} batches are fetched again: the data set can't be asked to go on from there"
            )
        for _ in range(count):
            batch = next(batches, None)
            if isinstance(batch, Mark):
                self._note_state(batch)

    def _make(
        self, plain: Opener, states: dict[int, bytes], *, held: bool = False, ended: Sequence[int] = ()
    ) -> Iterator[Any]:
        """Make torch's iterator, with our parts in it; the loader itself is left as it was."""
        base = self.base
        name = "sampler" if base.batch_sampler is None else "batch_sampler"
        sampler, collate, init = getattr(base, name), base.collate_fn, base.worker_init_fn
        order = Order(sampler, sums=not self.iterable)
        reused = bool(base.num_workers and base.persistent_workers and base._iterator is not None)
        if not reused:
            self._order = order
        order.held = held
        # A DataLoader refuses another sampler because an iterator that is under way wouldn't see it: this one does.
        object.__setattr__(base, name, order)
        if base.num_workers or self._source is not None:
            full = base.batch_size if self._source is not None and base.batch_sampler is not None else None
            base.collate_fn = marking = Marking(collate, full)
            base.worker_init_fn = Placing(init, states, collate, self._source is not None, ended)
            self._collate = marking if not base.num_workers else None
        try:
            batches = plain()
            if base.num_workers and base.persistent_workers and not reused:
                self._marking = batches  # it is the loader's, for good
            return batches
        finally:
            object.__setattr__(base, name, sampler)
            base.collate_fn, base.worker_init_fn = collate, init
            order.held = False

    # State ----------------------------------------------------------------------------------------------

    def _start(self, drawn: int) -> None:
        self._fetches.clear()
        self._marks.clear()
        self._ended, self._last_fetch = [], None
        self._fetched = drawn

    def _moment(self) -> Moment:
        told = None
        if self._source is not None and not self.base.num_workers:
            try:
                told = copy.deepcopy(self._source.state_dict())
            except Exception as error:  # a data set's own state_dict may raise anything: told by ``position``
                self._source, self._lost = None, error
        return Moment(take_random_state(), self._inner.take(), told)

    def _put(self, moment: Moment) -> None:
        if moment.random is not None:
            put_random_state(moment.random)
        self._inner.put(moment.inner)

    def before_fetch(self, moment: Moment | None) -> None:
        """Be ahead of a fetch, in a state of then where there is one."""
        if moment is not None:
            self._put(moment)
        if not self.base.num_workers:
            self._fetches.append((self._fetched, self._moment()))

    def fetched(self, batch: Any) -> Any:
        """Take note of a batch, and return it."""
        if isinstance(batch, Mark):
            self._marks.append((self._fetched, batch))
            batch = batch.batch
        elif self._collate is not None and self._collate.ended:
            self._last_fetch = self._fetched
        self._fetched += 1
        return batch

    def emptied(self) -> None:
        """Note that the DataLoader has no more batches."""
        if not hasattr(self.outer, "end_of_dataloader"):
            self._at.emptied = True

    def settle(self) -> None:
        """Note the random state behind a fetch, while somebody wants it."""
        if self.after is not None:
            self.after = Moment(take_random_state())


class Feed:
    """The batches of a pass, each fetched in the state that belongs to it."""

    def __init__(
        self, follower: Follower, batches: Iterator[Any], ahead: list[Moment], now: Moment | None
    ) -> None:
        self._follower, self._batches, self._ahead, self._now = follower, batches, ahead, now

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        moment = None
        if self._ahead:
            moment = self._ahead.pop(0)
        elif self._now is not None:
            moment, self._now = self._now, None
        self._follower.before_fetch(moment)
        try:
            batch = next(self._batches)
        except StopIteration:
            self._follower.emptied()
            raise
        finally:
            self._follower.settle()
        return self._follower.fetched(batch)


class Emptied:
    """A pass of which nothing is left: older accelerate would yield None. It has the loader's other sides."""

    def __init__(self, follower: Follower, at: Position) -> None:
        self._follower, self._position = follower, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_follower"].outer, name)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        self._follower.stand_behind(self._position)
        return iter(())


def _pickled(states: dict[int, dict[str, Any]]) -> dict[int, bytes]:
    return {worker: packed(state) for worker, state in states.items()}
