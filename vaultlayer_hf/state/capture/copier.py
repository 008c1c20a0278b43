"""Makes the copies of one training's state, one at a time, and has files written from them by a thread.

All rests on the premise that parameters change in the optimizer's step alone, so the first copy of a training tries it:
that copy is over before its save returns, and in front of the next step the parameters are compared with it. Where the
forward pass has changed one (prototypes that are normalised, weights that are clamped), each later copy is over before
its save returns, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy, Storage
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.memory import NoRoomError, fits, free_memory
from vaultlayer_hf.state.capture.stepped import place
from vaultlayer_hf.state.capture.writing import FileWriter

_T = TypeVar("_T")
SMALL = 32 * 2**20
"""Bytes of state below which training waits for the files: that takes milliseconds, and they are there the sooner."""


class Copier:
    """The copies of one training. On the training thread, but for what is handed to ``submit``.

        copier = Copier(Fit("overlapped"), say, count)
        copy = copier.copy(storages, stepped, others)
        written = copier.submit(write)
        ...                      # forward and backward
        copier.before_change()   # in front of the optimizer's step
        copier.after_step()

    Args:
        fit: how saves run; not "waiting".
        changed: called with how they run from now on, where that turns out to be another way.
        waited: called with the seconds for which training has waited for a copy behind its save.

    Attributes:
        fit: how they run now.
        writer: writes files from the copies.
    """

    def __init__(self, fit: Fit, changed: Callable[[Fit], object], waited: Callable[[float], object]) -> None:
        self.fit, self._changed, self._waited = fit, changed, waited
        self.writer = FileWriter()
        self._arena = Arena(pinned=torch.cuda.is_available())
        self._thread = ThreadPoolExecutor(1, "vaultlayer-save")
        self._prepared: Future[None] | None = None
        self._newest: StateCopy | None = None  # until the optimizer has stepped
        self._tried = False

    def prepare(self, size: int) -> None:
        """Make the memory ready for about ``size`` bytes, beside the training."""
        self._prepared = self.submit(lambda: self._reserve(size + size // 50 + 2**20))

    def copy(
        self, storages: Sequence[Storage], stepped: Iterable[torch.Tensor], others: Iterable[torch.Tensor]
    ) -> StateCopy:
        """Begin to copy storages, in the memory that the copy before has used. Raises NoRoomError.

        ``stepped``: what an optimizer's step changes; ``others``: what else may change at any time.
        """
        beside: set[int] = set()
        watched: list[torch.Tensor] = []
        if self.fit.mode == "overlapped" and storages:
            changed = list(stepped)
            beside = set(map(place, changed)) - set(map(place, others))
            watched = [one for one in changed if one.requires_grad and place(one) in beside]
        copy = StateCopy(self._arena, storages, beside=beside)
        if self._prepared is not None:
            self._prepared.result()
        self._reserve(copy.size)
        copy.start(watched, trial=not self._tried)
        if self.fit.mode == "copied":
            copy.wait()
        self._newest = copy
        return copy

    def before_change(self) -> None:
        """Wait until the newest copy is over, since the state is about to change. In front of the optimizer's step."""
        copy = self._newest
        if copy is None:
            return
        begin = time.monotonic()
        try:
            copy.hold_device()
            moved = copy.moved()
        except Exception:  # told where the checkpoint would appear
            return
        finally:
            self._waited(time.monotonic() - begin)
        if moved is not None:
            self._tried = True
        if moved:
            self.overlap_no_more()

    def after_step(self) -> None:
        """Take note that an optimizer has stepped."""
        copy, self._newest = self._newest, None
        if copy is not None:
            copy.note_step()

    def overlap_no_more(self) -> None:
        """Have each later copy be over before its save returns, because parameters change outside of the step, too."""
        if self.fit.mode == "overlapped":
            self.fit = Fit("copied", "parameters change outside of the optimizer's step")
            self._changed(self.fit)

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Have something done by the thread that writes; at once where the interpreter is ending."""
        try:
            return self._thread.submit(job)
        except RuntimeError:  # no thread takes anything more
            done: Future[_T] = Future()
            try:
                done.set_result(job())
            except Exception as error:
                done.set_exception(error)
            return done

    def close(self) -> None:
        """Give memory and thread back, once nothing is written any more. Safe to call twice."""
        self._thread.shutdown()
        self._arena.release()

    def _reserve(self, size: int) -> None:
        lacking, free = size - self._arena.size, free_memory()
        if lacking > 0 and not fits(lacking, free):
            raise NoRoomError(
                f"the copy needs {size / 2**20:.0f} MiB of host memory, and {(free or 0) / 2**20:.0f} are free"
            )
        self._arena.reserve(size)
