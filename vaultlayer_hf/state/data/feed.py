"""The batches of a pass as the loop gets them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from vaultlayer_hf.state.data.fetches import Fetches
from vaultlayer_hf.state.data.followed import Opener, base_of
from vaultlayer_hf.state.data.guard import Guard
from vaultlayer_hf.state.data.position import Moment
from vaultlayer_hf.state.data.samplers import SamplerStates, put_samplers, take_samplers
from vaultlayer_hf.state.data.workers import NotPlacedError, unmarked
from vaultlayer_hf.state.random_state import put_random_state, take_random_state


class Feed:
    """The batches of a pass, each fetched in the state that belongs to it.

    Only the fetch itself is outside the guard. So the loop gets every batch, also where taking note of one fails.

    Args:
        fetches: where they are noted.
        batches: torch's iterator.
        ahead: states of the batches that had been fetched ahead.
        now: state of the fetch behind those; None: as it is.
        emptied: called when there are no more.
        guard: of the following.
        anew: opens the same pass as torch alone does, and goes past the number of batches that this one has given.
    """

    def __init__(
        self,
        fetches: Fetches,
        batches: Iterator[Any],
        ahead: list[Moment],
        now: Moment | None,
        emptied: Callable[[], None],
        guard: Guard,
        anew: Callable[[int], Iterator[Any]],
    ) -> None:
        self._fetches, self._batches, self._emptied, self._guard = fetches, batches, emptied, guard
        self._anew, self._given = anew, 0
        self._moments = ahead + ([now] if now is not None else [])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._guard.run(self._fetches.before, self._moments.pop(0) if self._moments else None)
        try:
            batch = self._next()
        except StopIteration:
            # One rank that reads for all has met the end ahead of the save: no fetch is behind that.
            if self._moments:
                self._guard.run(self._fetches.put, self._moments.pop())
                self._moments.clear()
            self._guard.run(self._emptied)
            raise
        finally:
            self._guard.run(self._fetches.settle)
        batch, mark = unmarked(batch)
        self._guard.run(self._fetches.done, mark)
        self._given += 1
        return batch

    def _next(self) -> Any:
        try:
            return next(self._batches)
        except NotPlacedError as error:
            self._guard.end(error)
            self._batches = self._anew(self._given)
            return next(self._batches)


class Anew:
    """Opens a pass as torch alone does, after opening it with our parts in it has failed.

    Random state and samplers are put back first to what they were, so that the failed try leaves no trace.

    Args:
        loader: the loop's.
        plain: opens its DataLoader as torch does.
        behind: how many of the DataLoader's batches are done.
    """

    def __init__(self, loader: Any, plain: Opener, behind: int) -> None:
        self._loader, self._base, self._plain, self._behind = loader, base_of(loader), plain, behind
        self._iterator = getattr(self._base, "_iterator", None)  # of persistent workers
        self._random = take_random_state()
        self._samplers: SamplerStates = {}

    def note(self) -> None:
        """Note the samplers' state, which the order follows from. Raises what the user's samplers raise."""
        self._samplers = take_samplers(self._loader)

    def open(self, more: int) -> Iterator[Any]:
        """Open the pass, and fetch the batches that are done, and ``more``, once again."""
        self._base._iterator = self._iterator
        # It keeps its position itself, and was given one to go on from.
        if hasattr(self._base, "next_iter_state"):
            self._base.next_iter_state = None
        put_random_state(self._random)
        with contextlib.suppress(Exception):  # the user's samplers
            put_samplers(self._loader, self._samplers, began=True)
        batches = self._plain()
        for _ in range(self._behind + more):
            next(batches, None)
        return batches


class Emptied:
    """Stands for a loader whose pass has no batch left: older accelerate would yield None for such a pass.

    Every other attribute is the loader's own.

    Args:
        loader: the one whose pass it is.
        opened: called when the pass is opened.
    """

    def __init__(self, loader: Any, opened: Callable[[], None]) -> None:
        self._loader, self._opened = loader, opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        self._opened()
        return iter(())
