"""A script's own loops over epochs and batches, led past what is done: for scripts that keep their shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.data import LoopData

_T = TypeVar("_T")


class Passes:
    """Walks through epochs and batches from a position.

    Args:
        position: where the run is in its data; moved along.
    """

    def __init__(self, position: LoopData) -> None:
        self._position = position
        self._inside = self._began = False
        self.asked = 0
        """Passes that ``steps`` was asked for, those that are behind the run too."""

    def steps(
        self, loader: Iterable[Any], epochs: int | None, total: int | None, done: Callable[[], int]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch): ``epochs`` passes, or until ``total`` steps are done; one pass where neither is given.

        ``done`` returns how many steps are done. Raises SettingsError for a loader without batches.
        """
        count = epochs if epochs is not None else 1 if total is None else None
        while count is None or count > 0:
            count = count - 1 if count is not None else None
            self.asked += 1
            if self.asked <= self._position.passes:
                continue
            if total is not None and done() >= total:
                return
            empty = self._position.batches == 0
            for batch in self._position.batches_of(loader, self.asked - 1):
                empty = False
                yield done(), batch
                if total is not None and done() >= total:
                    return
            if empty and count is None and self._position.passes > 1:
                raise SettingsError(f"steps(total={total}): the dataloader gives no batches")

    @property
    def at_end(self) -> bool:
        """Whether the last batch of an epoch of ``epochs`` was given out: what is left of it is its own code."""
        return self._inside and self._position.at_end

    @property
    def inside(self) -> bool:
        """Whether an epoch of ``epochs`` is under way: one that the run still has to train."""
        return self._inside

    def is_over(self, finished: bool) -> bool:
        """Whether the pass that is asked for, outside of ``epochs``, is the one that the run was ``finished`` with."""
        first, self._began = not self._began, True
        return finished and first and not self._inside and not self._position.under_way

    def epochs(self, epochs: Iterable[_T], finished: bool, over: Callable[[], None]) -> Iterator[_T]:
        """Yield the epochs that aren't over; ``over`` is called behind each.

        The epoch that was under way begins with the random numbers that it began with. One that was left by ``break``
        ends a run that is ``finished``.
        """
        if finished and self._position.left:
            return
        if isinstance(epochs, range):
            # A script that resumes by itself, too, begins with another epoch than this run did: counted is from there.
            if self._position.first is None:
                self._position.first = epochs.start
            epochs = range(self._position.first, epochs.stop, epochs.step)  # type: ignore[assignment]
        for number, epoch in enumerate(epochs):
            if number < self._position.passes:
                continue
            self._position.begin_epoch(number)
            self._inside = True
            try:
                yield epoch
            except GeneratorExit:
                self._position.left = True
                raise
            finally:
                self._inside = False
            self._position.end_epoch(number)
            over()


class Batches:
    """The batches of one pass, or what is left of it; its length is their number, where that is known.

    ``over``: none is left, and the position stays what it is.
    """

    def __init__(self, position: LoopData, loader: Iterable[Any], *, over: bool = False) -> None:
        self._position, self._loader, self._over = position, loader, over
        if not over:
            position.begin_pass()
        self._done = position.behind(loader)

    def __len__(self) -> int:
        return 0 if self._over else len(self._loader) - self._done  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self._over:
            return iter(())
        return self._position.batches_of(self._loader, self._position.passes, set_epoch=False)
