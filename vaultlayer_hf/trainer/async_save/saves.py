"""A Trainer's saves beside its training: captured, written, and there by one rename.

1. **Capture** (training thread): stock's ``_save_checkpoint`` runs as ever, into a folder of ours,
   ``_vaultlayer/pending-…``. Its large files aren't written but recorded, and what they consist of is copied
   (state/capture/). Training goes on.
2. **Write** (a thread of ours): the files, from the copy.
3. **Appear** (training thread, between two steps): the folder gets its name ``checkpoint-N`` by one rename, whole; then
   what stock does behind a save is made up for (rotation), and the checkpoint goes the way of every other one.

So there is never half a ``checkpoint-N``, and folders change on the training thread alone, as everywhere in
``output_dir``. One copy is in flight at most: a save that comes while one is being written waits for it.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.output_dir import PENDING
from vaultlayer_hf.session.save.full_disk import is_disk_trouble
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy
from vaultlayer_hf.state.capture.memory import fits, free_memory
from vaultlayer_hf.state.capture.recorded import Recorded, recording
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.trainer.async_save.facts import others, stepped
from vaultlayer_hf.trainer.async_save.fit import Fit
from vaultlayer_hf.trainer.async_save.redirect import places, redirected
from vaultlayer_hf.vault.snapshot import LOCAL

SMALL = 32 * 2**20
"""Bytes of state below which it is written at once: that takes some milliseconds, and it is committed the sooner."""
_FAILURES = 2
"""Saves that may fail beside the training until all later ones are stock's."""


class NoRoomError(Exception):
    """There is too little memory for a copy."""


class AsyncSaves:
    """The saves of one training. On the training thread, but for what ``Capture`` says.

    Args:
        trainer: whose saves they are.
        training: what its checkpoints are committed by.
        fit: how they run; not "stock".
    """

    def __init__(self, trainer: Any, training: Training, fit: Fit) -> None:
        self._trainer, self._training, self.fit = trainer, training, fit
        self._arena = Arena(pinned=torch.cuda.is_available())
        self._thread = ThreadPoolExecutor(1, "vaultlayer-save")
        self._prepared: Future[None] | None = None
        self.capture: Capture | None = None
        self._sync_next = False
        self._best_before: str | None = None
        self._failures = 0
        self._off = False
        # Ahead of the training's own end: a script with the callback alone that fails comes to nothing but this.
        atexit.register(self.close)

    # A save ------------------------------------------------------------------------------------------------

    def save(self, target: Path, save: Callable[[], object]) -> bool:
        """Capture a checkpoint; return False where it is to be saved as stock does, and nothing of it is left.

        Args:
            target: its folder.
            save: stock's ``_save_checkpoint``.
        """
        if not self._takes(target):
            return False
        folder = self._training.session.output_dir / LOCAL / f"{PENDING}{target.name}"
        recorded: list[Recorded] = []
        behind: list[Callable[[], object]] = []
        state = self._trainer.state
        best = state.best_model_checkpoint
        try:
            files.remove_tree(folder)
            folder.mkdir(parents=True)
            with redirected(self._trainer, target, folder, behind), recording(recorded, places()):
                save()
            copy = self._copy(recorded)
            if copy is None:
                _write_at_once(recorded, folder, target)
        except Exception as error:  # whatever it is: stock's own save raises it too, or saves
            files.remove_tree(folder)
            state.best_model_checkpoint = best
            if not is_disk_trouble(error, folder):
                known = isinstance(error, NoRoomError)
                self._turn_off(str(error) if known else f"{type(error).__name__}: {error}")
            return False
        if copy is None:
            for one in behind:
                one()
            return True
        self.capture = Capture(folder, target, state.global_step, recorded, copy)
        self.capture.behind = behind
        self._best_before = best
        return True

    def write(self) -> None:
        """Begin to write what is captured; nothing where that has begun."""
        if self.capture is not None:
            self.capture.write(self._thread)

    def before_change(self) -> None:
        """Return once nothing of the training's state is being copied: it is about to change."""
        if self.capture is not None:
            try:
                self.capture.copy.hold_device()
            except Exception:  # told where the checkpoint would appear
                pass

    def after_step(self) -> None:
        """Take note that the optimizer has stepped."""
        if self.capture is not None:
            self.capture.copy.note_step()

    def settle(self, *, wait: bool) -> None:
        """Have a captured checkpoint appear, once it is written. Raises FencedError.

        Args:
            wait: whether to wait until it is written.
        """
        capture = self.capture
        if capture is None:
            return
        self.write()
        if not wait and not capture.done:
            return
        self._training.pacer.mark()
        self.capture = None
        try:
            capture.wait()
            if capture.target.exists():
                raise FileExistsError(f"{capture.target} was made by something else meanwhile")
            files.rename(capture.folder, capture.target)
        except Exception as error:
            self._lose(capture, error)
            return
        for one in capture.behind:
            one()

    def close(self) -> None:
        """Settle what is captured, and give memory and thread back. Safe to call twice."""
        atexit.unregister(self.close)
        try:
            self.settle(wait=True)
        finally:
            self._thread.shutdown()
            self._arena.release()
            self._off = True

    def prepare(self) -> None:
        """Make the memory ready beside the training, once the optimizer has made its state; once."""
        if self._prepared is None and not self._off:
            trainer = self._trainer
            adapter = hasattr(
                trainer.model, "peft_config"
            )  # of which the checkpoint doesn't hold the base model
            storages = {
                (one.untyped_storage().data_ptr(), one.untyped_storage().nbytes())
                for one in (*stepped(trainer), *(() if adapter else others(trainer)))
            }
            size = sum(bytes_ for _, bytes_ in storages)
            self._prepared = self._thread.submit(self._reserve, size + size // 50 + 2**20)

    # How ---------------------------------------------------------------------------------------------------

    def _takes(self, target: Path) -> bool:
        """Tell whether the save that is coming can be captured."""
        trainer = self._trainer
        control, state = trainer.control, trainer.state
        sync, self._sync_next = self._sync_next, False
        ends = control.should_training_stop or state.global_step >= state.max_steps
        # Behind the last save there is nothing to compute beside it. And what has begun to write to this very folder
        # is told nothing of another one.
        return not (self._off or sync or ends or target.exists())

    def _copy(self, recorded: list[Recorded]) -> StateCopy | None:
        """Begin to copy what recorded files consist of; None where that is so little that it isn't worth it."""
        storages = [storage for one in recorded for storage in one.storages()]
        if sum(storage.nbytes() for storage in storages) < SMALL:
            return None
        trainer = self._trainer
        watched = [one for one in stepped(trainer) if one.requires_grad]
        beside: set[int] = set()
        if self.fit.mode == "overlapped":
            beside = {one.untyped_storage().data_ptr() for one in stepped(trainer)}
            beside -= {one.untyped_storage().data_ptr() for one in others(trainer)}
        copy = StateCopy(self._arena, storages, beside=beside)
        if self._prepared is not None:
            self._prepared.result()
        self._reserve(copy.size)
        copy.start(watched if beside else ())
        return copy

    def _reserve(self, size: int) -> None:
        """Have the arena hold ``size`` bytes. Raises NoRoomError where too little memory is free."""
        lacking, free = size - self._arena.size, free_memory()
        if lacking > 0 and not fits(lacking, free):
            raise NoRoomError(
                f"the copy needs {size / 2**20:.0f} MiB of host memory, and {(free or 0) / 2**20:.0f} are free"
            )
        self._arena.reserve(size)

    def _lose(self, capture: Capture, error: Exception) -> None:
        """Say that a captured checkpoint is lost; the next one is saved as stock does."""
        files.remove_tree(capture.folder)
        state = self._trainer.state
        if state.best_model_checkpoint == str(capture.target):
            state.best_model_checkpoint = self._best_before
        training = self._training
        uploader = training.session.uploader
        exposure = f"; {uploader.exposure()}" if uploader is not None else ""
        reason = f"it couldn't be written beside the training: {type(error).__name__}: {error}"
        training.session.events.warn(
            EventKind.ABANDON,
            f"{capture.target.name} isn't committed, training goes on, and its next save is the stock one: "
            f"{reason}{exposure}",
            step=capture.step,
            reason=reason,
        )
        self._sync_next = True
        self._failures += 1
        if self._failures >= _FAILURES:
            self._turn_off(reason)

    def _turn_off(self, reason: str) -> None:
        self._off = True
        say_fit(self._training, Fit("stock", reason))


def say_fit(training: Training, fit: Fit) -> None:
    """Say once why saves don't run beside the training, where that was asked for."""
    if not fit.reason:
        return
    what = {
        "stock": "saves keep training waiting until they are written",
        "copied": "saves keep training waiting while the state is copied",
    }.get(fit.mode, "")
    training.session.events.warn_once("async_save", EventKind.NOTICE, f"async_save: {what}: {fit.reason}")


def _write_at_once(recorded: list[Recorded], folder: Path, target: Path) -> None:
    """Write recorded files from the state itself, and have them appear."""
    for one in recorded:
        one.write(_on_host)
    files.rename(folder, target)


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
