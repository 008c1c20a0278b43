"""The indices that a sampler gives: held back while workers start, left out up to a position, and summed up."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any

_KEPT = 1024
"""Batches whose sums are kept. A sum is asked for behind what was trained on, and the sampler is ahead of that by what
is prefetched: ``prefetch_factor`` times the workers, some hundreds at most."""


class Order:
    """Sits in front of a DataLoader's index sampler, in the place that its iterators draw from.

    Attributes:
        held: gives nothing while it is set: an iterator then starts its workers without sending them anything.
    """

    def __init__(self, plain: Any, *, sums: bool) -> None:
        self._plain, self._sums_up = plain, sums
        self.held = False
        self._items: Iterator[Any] = iter(())
        self._given = 0
        self._sums: deque[tuple[int, str]] = deque(maxlen=_KEPT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_plain"], name)

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[Any]:
        items = iter(self._plain)
        self._items, self._given = items, 0
        self._sums.clear()
        self._sums.append((0, ""))
        return _Items(self, items)

    def leave_out(self, count: int) -> None:
        """Take ``count`` items from the sampler and give them to nobody; they count in the sums."""
        for _ in range(count):
            item = next(self._items, self)
            if item is self:
                return
            self.note(item)

    def note(self, item: Any) -> None:
        """Add an item to the sums. One that can't be hashed, or can be gone through only once, ends them."""
        self._given += 1
        if isinstance(item, Iterator):  # to sum it up would use it up, and the loader's batch would be empty
            self._sums_up = False
        if self._sums_up:
            try:
                data = _bytes_of(item)
            except Exception:  # it is the user's: its ``__iter__`` and ``__repr__`` may raise anything
                self._sums_up = False
                return
            before = self._sums[-1][1]
            self._sums.append(
                (self._given, hashlib.blake2b(before.encode() + data, digest_size=8).hexdigest())
            )

    def sum_of(self, count: int) -> str | None:
        """Return the sum over the first ``count`` items of this pass; None where it isn't known."""
        if not self._sums_up:
            return None
        return next((text for number, text in self._sums if number == count), None)


def _bytes_of(item: Any) -> bytes:
    try:
        return array("q", item).tobytes()
    except (TypeError, OverflowError):
        return repr(item).encode()


class _Items:
    def __init__(self, order: Order, items: Iterator[Any]) -> None:
        self._order, self._items = order, items

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._order.held:
            raise StopIteration
        item = next(self._items)
        self._order.note(item)
        return item
