"""The position of a loop in its data: which pass, how many batches of it, and how to be there again.

A pass is repeated from the random state in which it began, so its order is the same; the batches that were
trained on are left out as indices, none of them is fetched. Then the random state is put back that the checkpoint was
taken in. Loaders that keep a position of their own (``state_dict``) are asked for it instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vaultlayer_hf.data.samplers import generators_only, parts, put_samplers, take_samplers
from vaultlayer_hf.random_state import put_random_state, take_random_state

_NOTHING = object()


class Position:
    """Where a loop is in its data.

    Attributes:
        passes: how many passes are behind it.
        batches: how many batches of the current pass it was given.
        left: whether the loop over epochs was left before its end.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.batches = 0
        self.left = False
        self._loader: Any = None
        self._dawn: dict[str, Any] | None = (
            None  # random state in which the epoch began, ahead of its batches
        )
        self._between: dict[str, dict[str, Any]] = {}  # of samplers, from a checkpoint between two passes
        self._begin: dict[str, Any] | None = None
        self._ahead: dict[str, Any] | None = None
        self._restored: dict[str, Any] | None = None
        self._random: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs, between two batches."""
        if self._restored is not None:
            return self._restored
        loader = self._loader
        return {
            "passes": self.passes,
            "batches": self.batches,
            "left": self.left,
            "dawn": self._dawn,
            "begin": self._begin,
            "ahead": self._ahead,
            "samplers": take_samplers(loader) if loader is not None else {},
            "loader": loader.state_dict() if _is_stateful(loader) else None,
        }

    def load_state_dict(self, state: dict[str, Any], random: dict[str, Any] | None) -> None:
        """Be where the loop was; the next ``batches_of`` goes on from there, with the random state given."""
        self.passes, self.batches = state["passes"], state["batches"]
        self.left, self._dawn = state.get("left", False), state.get("dawn")
        self._restored = state if state["begin"] is not None else None
        self._between = state["samplers"] if state["begin"] is None else {}
        self._random = random or take_random_state()

    @property
    def at_end(self) -> bool:
        """Whether all batches of the current pass were given out, where their number is known."""
        try:
            return self._begin is not None and self.batches == len(self._loader)
        except TypeError:
            return False

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, or begin again the one that was under way: with the same random numbers."""
        self.passes = number
        if self._restored is not None and self._dawn is not None:
            put_random_state(self._dawn)
        else:
            self._dawn = take_random_state()

    def end_epoch(self, number: int) -> None:
        """Be behind an epoch, whether or not it has gone through all of its batches."""
        self.passes, self.batches, self._begin, self._ahead, self._dawn = number + 1, 0, None, None, None

    def begin_pass(self) -> None:
        """Be at the start of a pass, unless a restored one is to go on."""
        if self._restored is None:
            self.batches = 0

    def batches_of(self, loader: Iterable[Any], number: int, *, tell: bool = True) -> Iterator[Any]:
        """Yield the batches of pass ``number``, or what is left of it; samplers are told that number on request."""
        self._loader = loader
        restored, self._restored = self._restored, None
        if restored is None:
            self.passes, self.batches = number, 0
            put_samplers(loader, self._between)
            self._between = {}
            if tell:
                _set_epoch(loader, number)
            self._begin = {"random": take_random_state(), "samplers": take_samplers(loader)}
            batches = iter(loader)
        else:
            self._begin = restored["begin"]
            batches = iter(()) if self._is_over(loader, restored) else self._reopen(loader, restored)
        looks_ahead = _looks_ahead(loader)
        while True:
            if looks_ahead:
                self._ahead = take_random_state()
            try:
                batch = next(batches)
            except StopIteration:
                break
            if restored is not None:
                self._ahead, restored = self._random if looks_ahead else None, None
            self.batches += 1
            yield batch
        counted = self._begin["samplers"].get("", {})
        if "iteration" in counted:  # accelerate doesn't count a pass of which nothing was left
            loader.iteration = counted["iteration"] + 1  # type: ignore[attr-defined]
        self.passes, self.batches, self._begin, self._ahead = self.passes + 1, 0, None, None

    def _is_over(self, loader: Any, state: dict[str, Any]) -> bool:
        """Tell whether nothing of the pass is left, without opening it: older ones of accelerate yield None then."""
        if not hasattr(loader, "base_dataloader") or _is_stateful(loader) or self.batches < len(loader):
            return False
        put_samplers(loader, state["samplers"])
        put_random_state(self._random)
        return True

    def _reopen(self, loader: Any, state: dict[str, Any]) -> Iterator[Any]:
        now = self._random
        if state["loader"] is not None:
            put_samplers(loader, state["samplers"])
            loader.load_state_dict(state["loader"])
            batches: Iterator[Any] = iter(loader)
            put_random_state(now)
            return batches
        put_random_state(state["begin"]["random"])
        put_samplers(loader, state["begin"]["samplers"])

        def there() -> None:
            put_samplers(loader, generators_only(state["samplers"]))
            put_random_state(now)

        base = getattr(loader, "base_dataloader", loader)
        if not _knows_indices(loader, base):
            return _replay(loader, self.batches, there)
        if base.num_workers:
            _leave_out(base, self.batches)
            return _then(iter(loader), there)
        at = {0: there}
        if state["ahead"] is not None:
            at = {0: lambda: put_random_state(state["ahead"]), 1: there}
        _leave_out(base, self.batches, at)
        return iter(loader)


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tell a plain loader's samplers which pass this is, as torch asks of scripts; accelerate's count themselves."""
    if hasattr(loader, "base_dataloader"):
        return
    for part in parts(loader).values():
        if part is not loader and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)


def _is_stateful(loader: Any) -> bool:
    """Tell whether a loader keeps its position itself; accelerate's have the methods, and often not the position."""
    if not (hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")):
        return False
    return not hasattr(loader, "base_dataloader") or bool(getattr(loader, "use_stateful_dataloader", False))


def _looks_ahead(loader: Any) -> bool:
    """Tell whether a batch is fetched before the one ahead of it is given out, by this very process."""
    base = getattr(loader, "base_dataloader", None)
    return base is not None and not base.num_workers


def _knows_indices(loader: Any, base: Any) -> bool:
    from torch.utils.data import DataLoader, IterableDataset

    if type(loader).__name__ == "DataLoaderDispatcher":  # rank 0 fetches for all
        return False
    return isinstance(base, DataLoader) and not isinstance(base.dataset, IterableDataset)


def _replay(loader: Iterable[Any], count: int, then: Callable[[], None]) -> Iterator[Any]:
    batches = iter(loader)
    for _ in range(count):
        next(batches, None)
    then()
    yield from batches


def _then(batches: Iterator[Any], then: Callable[[], None]) -> Iterator[Any]:
    """Workers fetch: what this process draws until the first batch is only the order."""
    first = next(batches, _NOTHING)
    then()
    if first is not _NOTHING:
        yield first
        yield from batches


def _leave_out(base: Any, count: int, at: dict[int, Callable[[], None]] | None = None) -> None:
    """Make the next pass of a DataLoader start behind ``count`` batches."""
    name = "sampler" if base.batch_sampler is None else "batch_sampler"
    plain = getattr(base, name)

    def put_back() -> None:
        object.__setattr__(base, name, plain)

    # A DataLoader refuses another sampler because an iterator that is under way wouldn't see it: there is none.
    object.__setattr__(base, name, _Behind(plain, count, at or {}, put_back))


class _Behind:
    """A sampler whose first pass starts behind ``count`` items, and calls ``at[n]`` ahead of the nth item it gives."""

    def __init__(
        self, plain: Any, count: int, at: dict[int, Callable[[], None]], put_back: Callable[[], None]
    ) -> None:
        self._plain, self._count, self._at, self._put_back = plain, count, at, put_back
        self._first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[Any]:
        return self._behind() if self._first else iter(self._plain)

    def _behind(self) -> Iterator[Any]:
        self._first = False  # not before: with workers a DataLoader asks twice for an iterator, and uses one
        self._put_back()
        items = iter(self._plain)
        for _ in range(self._count):
            next(items, None)
        at = dict(sorted(self._at.items()))
        number = 0
        while True:
            if number in at:
                at.pop(number)()
            try:
                item = next(items)
            except StopIteration:
                break
            number += 1
            yield item
        for call in at.values():
            call()
