"""Makes a DataLoader's iterators with our parts in them: as torch does, or as it was when a pass was left.

Parts of torch's iterator are used here that have no public name: hence the checks that are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import torch

from vaultlayer_hf.state.data.fetches import Fetches
from vaultlayer_hf.state.data.followed import Opener, keep_queues, workers_persist, workers_run
from vaultlayer_hf.state.data.guard import Guard
from vaultlayer_hf.state.data.order import Order
from vaultlayer_hf.state.data.position import Moment, Position
from vaultlayer_hf.state.data.samplers import generators_only, put_samplers
from vaultlayer_hf.state.data.sources import why_fetched_again
from vaultlayer_hf.state.data.workers import Mark, Marking, Placing, same


class Opening:
    """How the passes of one DataLoader are opened.

    Args:
        base: the DataLoader.
        iterable: whether its data set has no indices.
        fetches: what is noted of its passes.
        guard: of the following.

    Attributes:
        remarks: how a pass was opened, in words for people, where that is worth a sentence; a seam logs them.
        doubts: why numbers may differ behind a pass that was opened, in words; a seam warns of them.
    """

    def __init__(self, base: Any, iterable: bool, fetches: Fetches, guard: Guard) -> None:
        self.remarks: list[str] = []
        self.doubts: list[str] = []
        self._base, self._iterable, self._fetches, self._guard = base, iterable, fetches, guard
        self._order: Order | None = None
        self._marking: Any = None  # the persistent iterator whose workers mark their batches

    def sum_of(self, drawn: int, otherwise: str | None) -> str | None:
        """Return the sum over the first indices of this pass."""
        return self._order.sum_of(drawn) if self._order is not None else otherwise

    def make(
        self, plain: Opener, states: dict[int, bytes], *, held: bool = False, ended: Sequence[int] = ()
    ) -> Iterator[Any]:
        """Make torch's iterator, with our parts in it; the loader itself is left as it was.

        ``states``: of the workers to begin with. ``held``: they get nothing to do yet. ``ended``: these have no more.
        """
        base, source = self._base, self._fetches.source
        name = "sampler" if base.batch_sampler is None else "batch_sampler"
        sampler, collate, init = getattr(base, name), base.collate_fn, base.worker_init_fn
        order = Order(sampler, sums=not self._iterable)
        reused = workers_run(base)
        if not reused:
            self._order = order
        order.held = held
        # A DataLoader refuses another sampler because an iterator that is under way wouldn't see it: this one does.
        object.__setattr__(base, name, order)
        if base.num_workers or source is not None:
            full = base.batch_size if source is not None and base.batch_sampler is not None else None
            base.collate_fn = marking = Marking(collate, full)
            base.worker_init_fn = Placing(init, states, collate, source is not None, ended)
            self._fetches.collate = marking if not base.num_workers else None
        try:
            with self._guard.users():
                batches = plain()
            if workers_persist(base) and not reused:
                self._marking = batches  # it is the loader's, for good
            keep_queues(batches)
            return batches
        finally:
            object.__setattr__(base, name, sampler)
            base.collate_fn, base.worker_init_fn = collate, init
            order.held = False

    def again(
        self, loader: Any, at: Position, plain: Opener, drawn: int, *, near: bool, refetch: bool
    ) -> Iterator[Any]:
        """Make the iterator as it was when the pass began, and go past ``drawn`` batches.

        ``loader``: with what is around the DataLoader. ``near``: the iterator is another run's. ``refetch``: the data
        set knows neither indices nor its position.
        """
        base, fetches = self._base, self._fetches
        if not base.num_workers:
            fetches.put(at.begin)
            if fetches.source is not None and not near:
                source = (at.ahead[0] if at.ahead else at.now).source
                if drawn and source is not None:
                    fetches.source.load_state_dict(source)
            batches = self.make(plain, {})
            if self._order is not None and not self._iterable:
                self._leave_out(drawn, at.order)
            if at.ended and fetches.source is not None:
                return iter(())
        else:
            base._iterator = None  # workers that the script has started are others than then
            fetches.put(at.birth)
            batches = self.make(plain, fetches.workers, held=True, ended=[] if refetch else at.ended)
            # Workers that persist are older than a later pass. Where they and the order draw from the loader's own
            # generator the random state may be the same all the same; and to start them here has drawn from that.
            later = workers_persist(base) and at.passes > 0 and base.generator is not None
            if later or not same(asdict(at.birth), asdict(at.begin)):
                fetches.put(at.begin)
                put_samplers(loader, at.samplers, began=True)
                with self._guard.users():
                    indices = iter(self._order)  # type: ignore[arg-type] # it is one: ``make`` has set it
                batches._sampler_iter = indices  # type: ignore[attr-defined] # no public name
            self._leave_out(0 if self._iterable else drawn, at.order)
            if not refetch:
                for _ in range(at.turn):
                    next(batches._worker_queue_idx_cycle)  # type: ignore[attr-defined] # no public name
            for _ in range(base.prefetch_factor * base.num_workers):
                put = batches._try_put_index  # type: ignore[attr-defined] # no public name
                with self._guard.users():
                    put()
        if refetch:
            self.fetch_again(batches, drawn)
        return batches

    def fetch_again(self, batches: Iterator[Any], count: int) -> None:
        """Go past ``count`` batches by fetching them, and say so."""
        if count:
            self.remarks.append(f"{count} batches are fetched again: {why_fetched_again(self._base.dataset)}")
        for _ in range(count):
            with self._guard.users():
                batch = next(batches, None)
            if isinstance(batch, Mark):
                self._fetches.note(batch)

    def go_past_end(self, loader: Any, at: Position) -> None:
        """Have the samplers do what they do behind a pass's last item, which a loop's next fetch would have had done.

        torch's ``RandomSampler`` draws once more there, from the generator that it was given; a script's own may count.
        ``at``: of a save at the last batch, ahead of that fetch.
        """
        base = self._base
        put_samplers(loader, at.samplers, began=True)
        self._fetches.put(at.begin)
        with self._guard.users():
            items = iter(base.sampler if base.batch_sampler is None else base.batch_sampler)
            for _ in islice(items, at.drawn):
                pass
        # The weights here are now those of the pass's begin, and none that the script has set.
        put_samplers(loader, generators_only(at.between), began=True)
        self._fetches.put(at.now)
        with self._guard.users():
            next(items, None)

    def _leave_out(self, count: int, order: str | None) -> None:
        assert self._order is not None
        with self._guard.users():
            self._order.leave_out(count)
        if order is not None and count and self._order.sum_of(count) != order:
            self.doubts.append("the data's order isn't the one of the attempt before")

    # Persistent workers ---------------------------------------------------------------------------------

    @property
    def marks_persist(self) -> bool:
        """Whether persistent workers mark their batches: they do so to their end."""
        return self._marking is not None and self._marking is getattr(self._base, "_iterator", None)

    def drop_workers(self) -> None:
        """Have the next pass start workers of its own."""
        if self.marks_persist:
            self._base._iterator = self._marking = None

    def settle_workers(self) -> None:
        """Take in all states that workers have sent, and what persistent ones have fetched for a pass that was left.

        Torch would throw that away unseen, when the next pass begins.
        """
        self._fetches.note_all()
        if not self.marks_persist or self._order is None:
            return
        self._order.held = True
        try:
            for batch in self._marking:
                if isinstance(batch, Mark):
                    self._fetches.note(batch)
        except Exception:  # of a batch that nobody wants
            pass
        finally:
            self._order.held = False


class StatefulOpening:
    """How the passes of a DataLoader are opened that keeps its position itself, such as torchdata's.

    Only what this process draws is ours. Its order may be drawn when it is opened, or by its first fetch, so the pass
    has two beginnings: ``birth`` and, behind the opening, ``begin``.
    """

    def __init__(self, base: Any, iterable: bool, fetches: Fetches, guard: Guard) -> None:
        self._base, self._fetches, self._guard = base, fetches, guard
        self._tells = iterable and hasattr(base.dataset, "load_state_dict")

    def begin(self, at: Position, before: Position | None, plain: Opener) -> Iterator[Any]:
        """Open a pass at its start, behind a position where this process wasn't there yet; sets ``at``'s beginnings."""
        at.birth = at.begin
        if before is not None:
            self._forget(before.loader if self._tells else None)
        with self._guard.users():
            batches = plain()
        if before is not None and self._tells:  # opened twice: once at its end, once anew
            self._fetches.put(at.birth)
            torch.empty((), dtype=torch.int64).random_(generator=self._base.generator)
        if not self._base.num_workers:
            at.begin = self._fetches.moment()
        return batches

    def again(self, at: Position, plain: Opener, *, near: bool) -> Iterator[Any]:
        """Open a pass where it was left; ``near``: where another run has begun it."""
        self._fetches.put(at.birth)
        self._forget(None if near else at.loader)
        with self._guard.users():
            batches: Any = plain()
        if not self._base.num_workers:
            self._fetches.put(at.begin)
            if isinstance(getattr(batches, "_sampler_iter", None), islice):  # it has drawn nothing yet
                with self._guard.users():
                    first = list(islice(batches._sampler_iter, 1))
                batches._sampler_iter = chain(first, batches._sampler_iter)
        opened: Iterator[Any] = batches
        return opened

    def _forget(self, state: Any) -> None:
        """Replace the state that accelerate has told the loader to go on from; None: it begins anew."""
        if hasattr(self._base, "next_iter_state"):
            self._base._iterator = self._base.next_iter_state = None
            self._base._initial_iter_for_state_dict = False
        if state:
            self._base.load_state_dict(state)


def begun(moment: Moment, base: Any) -> Moment:
    """Return ``moment`` where a DataLoader would start its workers in it; an empty one where they run already."""
    return Moment() if workers_run(base) else moment
