"""What is noted of a pass while its batches are fetched: the random state ahead of each, and what workers send."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from vaultlayer_hf.state.data.inner import Inner, is_number_kept
from vaultlayer_hf.state.data.position import Moment
from vaultlayer_hf.state.data.sources import unwrapped
from vaultlayer_hf.state.data.workers import LOST, Mark, Marking, packed, unmarked, unpacked
from vaultlayer_hf.state.random_state import put_random_state, take_random_state


class Fetches:
    """The fetches of one DataLoader's passes.

    Args:
        base: the DataLoader.
        source: the data set that tells its own position; None where there is none to rely on.
        per_batch: how many of its batches are one of the loop's.

    Attributes:
        after: the random state behind the newest fetch; only noted while it isn't None.
        workers: the newest state of each worker, packed.
        ended: workers that have come to the end of their data set in this pass.
        collate: in the place of the loader's collator, where this process fetches and the end of the data shows there.
    """

    def __init__(self, base: Any, source: Any, per_batch: int) -> None:
        self.after: Moment | None = None
        self.workers: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.collate: Marking | None = None
        self.source = source
        self._own = not base.num_workers  # this process fetches
        self._number_of_workers = max(1, base.num_workers)
        self._inner = Inner(dataset=unwrapped(base.dataset), collate=base.collate_fn)
        self._lost: Exception | None = None
        # accelerate fetches one of the loop's batches ahead of the one that is trained on, each ``per_batch`` fetches:
        # twice that and two more is room for all that a position is asked for.
        self._ahead: deque[tuple[int, Moment]] = deque(maxlen=2 * max(1, per_batch) + 2)
        self._marks: deque[tuple[int, Mark]] = deque()
        self._last: int | None = None
        self._count = 0

    def start(self, drawn: int, ended: Sequence[int] = ()) -> None:
        """Begin a pass in which ``drawn`` batches have been fetched already."""
        self._ahead.clear()
        self._marks.clear()
        self.ended, self._last, self._count = list(ended), None, drawn

    # Moments --------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """Return what the next item follows from, as it is now."""
        source = None
        if self.source is not None and self._own:
            try:
                source = copy.deepcopy(self.source.state_dict())
            except Exception as error:
                # A data set's own state_dict may raise anything: raised by ``worker_states``.
                self.source, self._lost = None, error
        return Moment(take_random_state(), self._inner.take(), source)

    def put(self, moment: Moment) -> None:
        """Put a moment's random state, and what data set and collator hold, back; the data set's own state isn't."""
        if moment.random is not None:
            put_random_state(moment.random)
        self._inner.put(moment.inner)

    def put_numbers(self, moment: Moment, *, steady: Collection[str]) -> Moment:
        """Put the numbers of a moment back, as ``Inner.put`` does; return the moment without them."""
        numbers = {path: kept for path, kept in moment.inner.items() if is_number_kept(kept)}
        self._inner.put(numbers, steady=steady)
        return replace(
            moment, inner={path: kept for path, kept in moment.inner.items() if path not in numbers}
        )

    # Each fetch -----------------------------------------------------------------------------------------

    def before(self, moment: Moment | None) -> None:
        """Called ahead of each fetch: put the moment that belongs to it back, if one is given, and note this one."""
        if moment is not None:
            self.put(moment)
        if self._own:
            self._ahead.append((self._count, self.moment()))

    def settle(self) -> None:
        """Called behind each fetch: note the random state in ``after``, where that is wanted (it isn't None)."""
        if self.after is not None:
            self.after = Moment(take_random_state())

    def done(self, mark: Mark | None) -> None:
        """Take note of a fetch that is done, and of what a worker tells with it."""
        if mark is not None:
            self._marks.append((self._count, mark))
        elif self.collate is not None and self.collate.ended:
            self._last = self._count
        self._count += 1

    def note(self, mark: Mark) -> None:
        """Take note of what a worker tells."""
        if mark.state is not None:
            self.workers[mark.worker] = mark.state
        if mark.ended:
            self.ended.append(mark.worker)

    def note_all(self) -> None:
        """Take in all states that workers have sent."""
        for _, mark in self._marks:
            self.note(mark)
        self._marks.clear()

    def plain(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of a pass that isn't followed, without the marks that persistent workers put on them."""
        for item in batches:
            batch, mark = unmarked(item)
            if mark is not None:
                self.note(mark)
            yield batch

    # What it comes to -----------------------------------------------------------------------------------

    @property
    def workers_draw(self) -> bool:
        """Whether worker processes were seen to draw random numbers, or to hold a state of their own."""
        return bool(self.workers) or any(mark.state for _, mark in self._marks)

    def turn_behind(self, drawn: int, turn: int) -> int:
        """Take in what workers sent with the first ``drawn`` batches; return whose turn it is."""
        while self._marks and self._marks[0][0] < drawn:
            mark = self._marks.popleft()[1]
            turn = (mark.worker + 1) % self._number_of_workers
            self.note(mark)
        return turn

    def ahead_of(self, drawn: int) -> list[Moment]:
        """Return the moments that were noted ahead of each fetch after the first ``drawn``."""
        return [moment for number, moment in self._ahead if number >= drawn]

    def ended_within(self, drawn: int, *, workers: bool) -> list[int]:
        """Return which workers have come to their end, where they are asked for; 0 where this process fetches."""
        own = [0] if self._last is not None and self._last < drawn else []
        return (self.ended if workers else []) + own

    def worker_states(self) -> dict[int, dict[str, Any]]:
        """Return the workers' states. Raises what the data set raised that has no state of its own to give."""
        if self._lost is not None:
            raise self._lost
        found = {worker: unpacked(state) for worker, state in self.workers.items()}
        for state in found.values():
            if LOST in state:
                raise RuntimeError(state[LOST])
        return found


def pickled(states: dict[int, dict[str, Any]]) -> dict[int, bytes]:
    """Return the states of workers, each ``packed``: as they are sent between processes."""
    return {worker: packed(state) for worker, state in states.items()}
