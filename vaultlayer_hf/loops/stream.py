"""A loader that a loop draws from with next(), and not by a ``for``: an iterator that knows where it is in its data.

    stream = Checkpointer.stream(loader)
    batches = iter(stream)  # opens a pass, as iter(loader) does
    ...
    ckpt.resume()
    ckpt.carry(lambda: {"stream": stream})

Its state goes with the loop's variables. One that was brought back opens its loader when the next batch is asked for:
with the random numbers of that moment, which are those that an unbroken run has there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.loops.data import LoopData
from vaultlayer_hf.state.random_state import take_random_state


class Stream:
    """Batches of a loader, pass by pass, with a ``state_dict``; ``iter()`` opens the next pass and returns the stream.

    Args:
        loader: a DataLoader, or anything that can be gone through again and again. Of one process.
        endless: a pass that is over is followed by the next one by itself, and the first is opened by ``next()``.
    """

    def __init__(self, loader: Iterable[Any], *, endless: bool = False) -> None:
        self._loader, self._endless = loader, endless
        self._position = LoopData(Events())
        self._batches: Iterator[Any] | None = None
        self._kept: dict[str, Any] | None = None  # of a checkpoint, until the next batch is asked for

    def __iter__(self) -> Stream:
        if self._endless:
            return self
        if self._kept is not None:  # the pass that it was in is given up for a new one
            behind = self._kept["passes"] + bool(self._kept["under_way"])
            self._go_on({**self._kept, "under_way": False, "passes": behind, "batches": 0})
        self._open()
        return self

    def __next__(self) -> Any:
        if self._kept is not None:
            under_way = self._kept["under_way"]
            self._go_on(self._kept)
            if under_way:
                self._open()
        if self._batches is None and self._endless:
            self._open()
        if self._batches is None:
            raise StopIteration
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = None
            if not self._endless:
                raise
        return next(self._open())

    def _open(self) -> Iterator[Any]:
        if self._batches is not None:  # given up before its end
            self._position.end_epoch(self._position.passes)
        self._batches = self._position.batches_of(self._loader, self._position.passes, set_epoch=False)
        return self._batches

    def _go_on(self, state: dict[str, Any]) -> None:
        self._kept = None
        self._position.load_state_dict(state, take_random_state(), 1)

    def state_dict(self) -> dict[str, Any]:
        """Return where it is in its data, between two batches."""
        return self._kept if self._kept is not None else self._position.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be there from the next batch on."""
        self._position.leave()
        self._position, self._batches, self._kept = LoopData(Events()), None, state
