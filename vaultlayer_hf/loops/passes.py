"""A script's own loops over epochs and batches, led past what is done: for scripts that keep their shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.data import LoopData

_T = TypeVar("_T")
_WITHIN_ANOTHER = (
    "epochs() is asked for within an epoch of another epochs() loop, and a run's place is that in one loop: give "
    "epochs() to one of the two, the inner one, say, and let the outer one be plain. A loop that was left by break "
    "isn't over as long as a variable holds what it goes through, such as a progress bar: del it"
)


class Passes:
    """Walks through epochs and batches from a position.

    Args:
        position: where the run is in its data; moved along.
        say_again: says that code between two passes of ``steps`` runs once more.
    """

    def __init__(self, position: LoopData, say_again: Callable[[], None] = lambda: None) -> None:
        self._position, self._say_again = position, say_again
        self._inside = self._began = self._passed_over = False
        self._loops = 0  # over epochs, in this process
        self.asked = 0
        """Passes that ``steps`` was asked for, those that are behind the run too."""

    def steps(
        self, loader: Iterable[Any], epochs: int | None, total: int | None, done: Callable[[], int]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch): ``epochs`` passes, or until ``total`` steps are done; one pass where neither is given.

        ``done`` returns how many steps are done. Raises SettingsError for a loader without batches.
        """
        count = epochs if epochs is not None else 1 if total is None else None
        alone = count == 1  # so what follows in the script is between two calls
        if self._passed_over:
            self._say_again()
        while count is None or count > 0:
            count = count - 1 if count is not None else None
            self.asked += 1
            if self.asked <= self._position.passes:
                self._position.name(loader)
                self._passed_over |= alone
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
        """Whether the last batch of a pass within an epoch of ``epochs`` was given out: its own code is what is left.

        Perhaps that of another pass: it isn't known ahead.
        """
        return self._inside and (self._position.at_end or self._position.in_tail)

    @property
    def inside(self) -> bool:
        """Whether an epoch of ``epochs`` is under way: one that the run still has to train."""
        return self._inside

    def leave(self) -> None:
        """Note that the loop over epochs is left: the run ends, and a progress bar, say, holds its generator."""
        if self._inside:
            self._inside = False
            self._position.leave_epoch()

    def is_over(self, finished: bool) -> bool:
        """Whether the pass that is asked for next, outside of ``epochs``, is the one that ``finished`` the run."""
        return finished and not self._began and not self._inside and not self._position.under_way

    def begin_pass(self, finished: bool) -> bool:
        """Tell, once, what ``is_over`` does: the next pass is another one."""
        over = self.is_over(finished)
        self._began = True
        return over

    def begin_again(self) -> None:
        """Have the next loop over epochs be the script's first, as where a notebook's cell is run again."""
        if not self._inside:
            self._loops = 0

    def epochs(self, epochs: Iterable[_T], finished: bool, over: Callable[[], None]) -> Iterator[_T]:
        """Yield the epochs that aren't over; ``over`` is called behind each.

        The epoch that was under way begins with the random numbers that it began with. One that was left by ``break``
        ends a run that is ``finished``. A script may have several such loops, each with epochs of its own, one behind
        the other. Raises SettingsError for one within another.
        """
        if self._inside:
            raise SettingsError(_WITHIN_ANOTHER)
        position = self._position
        loop, self._loops = self._loops, self._loops + 1
        if (finished and position.left) or loop < len(position.loops):
            return
        if loop > len(position.loops):
            position.begin_loop()
        if isinstance(epochs, range):
            # A script that resumes by itself, too, begins with another epoch than this run did: counted is from there.
            if position.first is None:
                position.first = epochs.start
            epochs = range(position.first, epochs.stop, epochs.step)  # type: ignore[assignment]
        for number, epoch in enumerate(epochs, sum(position.loops)):
            if number < position.passes:
                continue
            position.left = False  # another loop before this one may have been
            position.begin_epoch(number)
            self._inside = True
            try:
                yield epoch
            except GeneratorExit:
                position.leave_epoch()
                raise
            finally:
                self._inside = False
            position.end_epoch(number)
            over()


class Batches:
    """The batches of the pass that comes when they are gone through, or what is left of it.

    Their length is how many these are, where that is known. It only looks: nothing is begun by it.

    Args:
        passes: walk through the run's data.
        position: where the run is in its data.
        loader: whose batches they are.
        finished: whether the run was finished before.
    """

    def __init__(self, passes: Passes, position: LoopData, loader: Iterable[Any], finished: bool) -> None:
        self._passes, self._position, self._loader, self._finished = passes, position, loader, finished
        self._begun: tuple[int, int | None] | None = None  # which pass was
        self._over, self._done = False, 0
        position.ask()

    def __len__(self) -> int:
        over, done = self._over, self._done
        if self._begun != self._position.of_now:
            over = self._passes.is_over(self._finished) or self._position.passes_over
            done = self._position.behind(self._loader)
        return 0 if over else len(self._loader) - done  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        position = self._position
        self._over = self._passes.begin_pass(self._finished) or position.pass_over(self._loader)
        self._done = position.behind(self._loader)
        batches = iter(()) if self._over else self._open()
        self._begun = position.of_now
        return batches

    def _open(self) -> Iterator[Any]:
        return self._position.batches_of(self._loader, self._position.passes, set_epoch=False)
