"""The state of a loader's worker processes: sent with each batch, put back where a worker is started again.

A worker's random numbers follow from its seed and from all that it has fetched. So each batch brings what its worker
has become by it, where that has changed: a data set that draws nothing costs nothing. Nothing is drawn for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch

from vaultlayer_hf.state.data.guard import reason_of
from vaultlayer_hf.state.data.inner import Inner
from vaultlayer_hf.state.data.sources import source_of, unwrapped
from vaultlayer_hf.state.random_state import put_random_state, take_random_state

State = dict[str, Any]
LOST = "lost"
"""In a worker's state: why the data set's own state isn't part of it."""
_mine: _Worker | None = None
"""In a worker process: itself."""


def packed(state: State) -> bytes:
    """Return a worker's state as bytes: tensors would travel as shared memory."""
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


def unpacked(data: bytes) -> State:
    """Return what ``packed`` was given. Raises what torch raises."""
    state: State = torch.load(io.BytesIO(data), weights_only=True)
    return state


class Mark:
    """A batch on its way from a worker.

    Attributes:
        batch: what the collator made.
        worker: number of the worker.
        state: packed; None where the batch has changed nothing.
        ended: whether the worker has come to the end of its data set with it.
    """

    __slots__ = ("batch", "ended", "state", "worker")

    def __init__(self, batch: Any, worker: int, state: bytes | None, ended: bool) -> None:
        self.batch, self.worker, self.state, self.ended = batch, worker, state, ended

    def pin_memory(self) -> Mark:
        """Pin the batch: torch calls this on what it doesn't know."""
        from torch.utils.data._utils.pin_memory import pin_memory

        self.batch = pin_memory(self.batch)  # type: ignore[no-untyped-call] # torch has no types here
        return self


def unmarked(item: Any) -> tuple[Any, Mark | None]:
    """Return a batch, and the mark that it came with, where it did: without the batch, which would stay in memory."""
    if not isinstance(item, Mark):
        return item, None
    batch, item.batch = item.batch, None
    return batch, item


class Marking:
    """A collator that marks its batches, in a worker process.

    Args:
        collate: the loader's own.
        full: how many samples a batch has that isn't the last one of a data set without indices; None: with indices.

    Attributes:
        ended: whether the newest batch was such a last one.
    """

    def __init__(self, collate: Callable[[Any], Any], full: int | None) -> None:
        self.collate, self._full = collate, full
        self.ended = False

    def __call__(self, samples: Any) -> Any:
        self.ended = self._full is not None and len(samples) < self._full
        batch = self.collate(samples)
        return batch if _mine is None else Mark(batch, _mine.number, _mine.changed(), self.ended)


class NotPlacedError(Exception):
    """A worker can't be put where it was left: it would give batches that were trained on already."""


class Placing:
    """A worker's initialisation that ends with the state in which it was left, where there is one.

    Raises NotPlacedError where it can't be put there; torch hands that to the process that fetches.

    Args:
        init: the loader's own, or None.
        states: packed, by number of the worker.
        collate: the loader's collator: it may hold generators.
        sends_source: whether the data set's ``state_dict`` belongs to a worker's state.
        ended: numbers of the workers that have nothing left of the pass under way.
    """

    def __init__(
        self,
        init: Callable[[int], None] | None,
        states: dict[int, bytes],
        collate: Any,
        sends_source: bool,
        ended: Sequence[int],
    ) -> None:
        self._init, self._states, self._collate, self._sends_source = init, states, collate, sends_source
        self._ended = ended

    def __call__(self, number: int) -> None:
        global _mine
        if self._init is not None:
            self._init(number)
        info = torch.utils.data.get_worker_info()
        dataset: Any = info.dataset if info is not None else None
        _mine = _Worker(number, dataset, self._collate, self._sends_source)
        try:
            if number in self._states:
                _mine.put(unpacked(self._states[number]))
            if number in self._ended:
                _empty_once(dataset)
        except Exception as error:
            raise NotPlacedError(reason_of(error)) from error


def _empty_once(dataset: Any) -> None:
    """Have a data set, in a worker process, give nothing the first time: what its own state starts is the next pass."""
    cls: Any = type(dataset)

    def __iter__(self: Any) -> Any:  # noqa: N807 - a method, of the class below
        self.__class__ = cls
        return iter(())

    body = {"__module__": cls.__module__, "__iter__": __iter__, "__slots__": ()}  # of the same layout
    dataset.__class__ = type(cls.__name__, (cls,), body)


class _Worker:
    """A worker process, from inside. What the data set raises while it is looked into costs the state, not the batch.

    The process that fetches from it learns of that with the next batch, by a state that holds nothing but ``LOST``.
    """

    def __init__(self, number: int, dataset: Any, collate: Any, sends_source: bool) -> None:
        self.number = number
        self._source: Any = None
        self._lost = ""  # why the data set's own state isn't part of the state
        self._blind = ""  # why there is no state at all
        self._last: State = {}
        try:
            self._inner = Inner(dataset=unwrapped(dataset), collate=collate)
            self._source = source_of(dataset) if sends_source else None
            state = self._take()
            self._last = {} if self._lost else state  # its first batch tells
        except Exception as error:
            self._blind = reason_of(error)

    def _take(self) -> State:
        state: State = {"random": take_random_state(devices=False), "inner": self._inner.take()}
        if self._source is not None:
            try:
                state["source"] = self._source.state_dict()
            except Exception as error:  # a data set's own state_dict may raise anything
                self._lose(error)
        return state | ({LOST: self._lost} if self._lost else {})

    def _lose(self, error: Exception) -> None:
        self._source, self._lost = None, f"{type(error).__name__}: {error}"

    def put(self, state: State) -> None:
        """Put a state back. Raises what the data set's parts raise."""
        if self._blind:
            raise RuntimeError(self._blind)
        put_random_state(state["random"])
        self._inner.put(state["inner"])
        if self._source is not None and state.get("source") is not None:
            self._source.load_state_dict(state["source"])
        self._last = state

    def changed(self) -> bytes | None:
        """Return the state, packed; None where it is still what was returned last."""
        if not self._blind:
            try:
                return self._change()
            except Exception as error:
                self._blind = reason_of(error)
        state = {LOST: self._blind}
        if self._last == state:
            return None
        self._last = state
        return packed(state)

    def _change(self) -> bytes | None:
        state = self._take()
        if same(state, self._last):
            return None
        try:
            data = packed(state)
        except Exception as error:  # the data set's own state may hold what can't be written
            if self._source is None:
                raise
            self._lose(error)
            state = self._take()
            data = packed(state)
        self._last = state
        return data


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, tensors by their content."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, tuple) and len(one) < 100:  # longer: Python's 625 numbers, and no tensor among them
        return (
            isinstance(other, tuple)
            and len(one) == len(other)
            and all(same(mine, theirs) for mine, theirs in zip(one, other, strict=True))
        )
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # arrays: their comparison is an array
        return False
