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
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy
from vaultlayer_hf.state.capture.memory import fits, free_memory
from vaultlayer_hf.state.capture.recorded import Recorded, recording
from vaultlayer_hf.trainer.async_save.agreed import Agreed, say_fit
from vaultlayer_hf.trainer.async_save.capture import Capture, write_now
from vaultlayer_hf.trainer.async_save.facts import may_read_folder, others, stepped
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
        self.agreed = Agreed(training.session)
        self.capture: Capture | None = None
        self.folder_is_read = False  # by a callback that hears of the save, on any rank
        self._sync_next = False
        self._best_before: str | None = None
        self._failures = 0
        self._off = False
        # Ahead of the training's own end: a script with the callback alone that fails comes to nothing but this.
        atexit.register(self.close)

    # A save ------------------------------------------------------------------------------------------------

    def save(self, target: Path, save: Callable[[], object]) -> bool:
        """Capture a checkpoint; return False where it is to be saved as stock does, and nothing of it is left.

        All ranks.

        Args:
            target: its folder.
            save: stock's ``_save_checkpoint``; what the disk refuses it raises at its end.
        """
        trainer, agreed = self._trainer, self.agreed
        folder = self._training.session.output_dir / LOCAL / f"{PENDING}{target.name}"
        reads = any(map(may_read_folder, trainer.callback_handler.callbacks))
        takes, self.folder_is_read = agreed.begin(self._takes(target) and self._made(folder), reads)
        if not takes:
            self._drop(folder)
            return False
        recorded: list[Recorded] = []
        behind: list[Callable[[], object]] = []
        best = trainer.state.best_model_checkpoint
        copy, error = None, None
        try:
            with redirected(trainer, target, folder, behind), recording(recorded, places()):
                save()
            copy = self._copy(recorded)
            if copy is None:
                write_now(recorded)
        except Exception as found:  # whatever it is: stock's own save raises it too, or saves
            error = found
        failed, lasts, beside = agreed.captured(error, copy is not None)
        if failed is None and not beside:
            failed = agreed.failure(lambda: files.rename(folder, target) if agreed.leads else None)
        if failed is not None:
            if copy is not None:
                _end(copy)
            self._drop(folder)
            trainer.state.best_model_checkpoint = best
            if lasts:
                self._turn_off(failed)
            return False
        if not beside:
            for one in behind:
                one()
            return True
        if copy is None:  # what this rank saves is little, and written: it waits for another's
            recorded, copy = [], StateCopy(self._arena, ())
            copy.start()
        self.capture = Capture(folder, target, trainer.state.global_step, recorded, copy)
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
        """Have a captured checkpoint appear, once it is written. Raises FencedError. All ranks.

        Args:
            wait: whether to wait until it is written. Where not, at the end of each step.
        """
        capture, agreed = self.capture, self.agreed
        if capture is None:
            return
        self.write()
        if not wait and not agreed.due(self._trainer.state.global_step, capture.done):
            return
        self._training.pacer.mark()
        self.capture = None

        def written() -> None:
            capture.wait()
            if agreed.leads and capture.target.exists():
                raise FileExistsError(f"{capture.target} was made by something else meanwhile")

        # In two rounds: the folder has its name once every rank has written, and goes on its way once it has its name.
        failed = agreed.failure(written) or agreed.failure(
            lambda: files.rename(capture.folder, capture.target) if agreed.leads else None
        )
        if failed is not None:
            self._lose(capture, failed)
            return
        for one in capture.behind:
            one()

    def close(self) -> None:
        """Settle what is captured, and give memory and thread back. Safe to call twice.

        Of several ranks others may have ended, or wait in a collective: what is captured is given up then. Where all
        end together it was settled before.
        """
        atexit.unregister(self.close)
        try:
            capture = self.capture
            if capture is not None and not self.agreed.alone:
                self.capture = None
                _end(capture.copy)
                self._lose(capture, "the training broke off before all ranks had written it")
            self.settle(wait=True)
        finally:
            self._thread.shutdown()
            self._arena.release()
            self._off = True

    def prepare(self) -> None:
        """Make the memory ready beside the training, once the optimizer has made its state; once."""
        trainer = self._trainer
        if self._prepared is None and not self._off and trainer.args.should_save:
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

    def _made(self, folder: Path) -> bool:
        """Make the folder to write to; return False where the disk refuses it, as it does stock's save."""
        try:
            if self.agreed.leads:
                files.remove_tree(folder)
                folder.mkdir(parents=True)
        except OSError:
            return False
        return True

    def _drop(self, folder: Path) -> None:
        if self.agreed.leads:
            files.remove_tree(folder)

    def _lose(self, capture: Capture, failed: str) -> None:
        """Say that a captured checkpoint is lost; the next one is saved as stock does. On all ranks alike."""
        self._drop(capture.folder)
        state = self._trainer.state
        if state.best_model_checkpoint == str(capture.target):
            state.best_model_checkpoint = self._best_before
        session = self._training.session
        exposure = f"; {session.uploader.exposure()}" if session.uploader is not None else ""
        reason = f"it couldn't be written beside the training: {failed}"
        if session.ranks.rank == 0:
            session.events.warn(
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


def _end(copy: StateCopy) -> None:
    """Return once nothing is copied any more, of a copy that is given up."""
    try:
        copy.wait()
    except Exception:  # it is torn, and nobody wants it
        pass
