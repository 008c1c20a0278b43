"""A Trainer's saves beside its training: captured, written, and there by one rename.

1. **Capture** (training thread): stock's ``_save_checkpoint`` runs as ever, into a folder of ours,
   ``pending-…`` in the run's workspace. Its large files aren't written but recorded, and what they consist of is copied
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
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.base.forks import forget_in_children
from vaultlayer_hf.session.output_dir import PENDING
from vaultlayer_hf.session.save.async_trouble import AsyncTrouble
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture import copier
from vaultlayer_hf.state.capture.copier import Copier
from vaultlayer_hf.state.capture.copying import StateCopy, TornError
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.recorded import Recorded, on_host, recording
from vaultlayer_hf.state.capture.stepped import is_small, size_of
from vaultlayer_hf.trainer.async_save.agreed import Agreed
from vaultlayer_hf.trainer.async_save.capture import Capture
from vaultlayer_hf.trainer.async_save.facts import gathers, others, reader_of_folder, stepped
from vaultlayer_hf.trainer.async_save.redirect import deleting, places, redirected
from vaultlayer_hf.trainer.saved_best import SavedBest
from vaultlayer_hf.vault.retention.tidy import clear_trash, take_out
from vaultlayer_hf.vault.workspace import workspace


class AsyncSaves:
    """The saves of one training. On the training thread, but for what ``Capture`` says.

    Args:
        trainer: whose saves they are.
        training: what its checkpoints are committed by.
        fit: how they run; not "waiting".
        trouble: what says that one is lost, or that they are waited for.
        best: the best checkpoint, which may be lost.

    Attributes:
        copier: makes the copies of the state.
        agreed: what the ranks agree on.
        capture: the checkpoint that is written beside the training; None: there is none.
        folder_is_read: whether a callback that hears of the save may read its folder, on any rank.
    """

    def __init__(
        self, trainer: Any, training: Training, fit: Fit, trouble: AsyncTrouble, best: SavedBest
    ) -> None:
        self._trainer, self._training, self._trouble = trainer, training, trouble
        self.copier = Copier(fit, trouble.say, training.pacer.waited)
        self.agreed = Agreed(training.session)
        self.capture: Capture | None = None
        self.folder_is_read = self._looked = False
        self._best = best
        self._inherited = False
        forget_in_children(self.forget)
        # Ahead of the training's own end: a script with the callback alone that fails comes to nothing but this.
        atexit.register(self.close)

    # A save ------------------------------------------------------------------------------------------------

    def save(self, target: Path, save: Callable[[], object], keep: Callable[[Path], object]) -> bool:
        """Capture a checkpoint; return False where it is to be saved as stock does, and nothing of it is left.

        All ranks.

        Args:
            target: its folder.
            save: stock's ``_save_checkpoint``; what the disk refuses it raises at its end.
            keep: writes what is ours into a folder; raises nothing.
        """
        trainer, agreed = self._trainer, self.agreed
        folder = workspace(self._training.session.output_dir) / f"{PENDING}{target.name}"
        reader = reader_of_folder(trainer.callback_handler.callbacks)
        takes, reader = agreed.begin(self._takes(target) and self._made(folder), reader)
        if not takes:
            self._drop(folder)
            return False
        self.folder_is_read = bool(reader)
        recorded: list[Recorded] = []
        rotations: list[Callable[[], object]] = []
        best = trainer.state.best_model_checkpoint
        copy, error = None, None
        try:
            records = recording(recorded, places()) if self._is_large() else nullcontext()
            with redirected(trainer, target, folder, rotations), records:
                save()
            copy = None if self._ends() else self._copy(recorded)
            if copy is None:
                self.copier.writer.write(recorded, on_host)
        except Exception as found:  # whatever it is: stock's own save raises it too, or saves
            error = found
        failed, lasts, beside = agreed.captured(error, copy is not None)
        if failed is None and not beside:
            failed = agreed.failure(lambda: keep(folder)) or agreed.failure(
                lambda: files.rename(folder, target, flush=False) if agreed.leads else None
            )
        if failed is not None:
            if copy is not None:
                copy.give_up()
            self._drop(folder)
            trainer.state.best_model_checkpoint = best
            if lasts:
                self._trouble.turn_off(failed)
            return False
        best_now = self._best.now()
        if not beside:
            self._best.keep(best_now)
            self._rotate(rotations)
            return True
        if copy is None:  # what this rank saves is little, and written: it waits for another's
            recorded, copy = [], self.copier.copy((), (), ())
        self._trouble.say_reader(reader)
        step = trainer.state.global_step
        self.capture = Capture(folder, target, step, recorded, copy, lambda: keep(folder))
        self.capture.behind = [lambda: self._best.keep(best_now), lambda: self._rotate(rotations)]
        return True

    def write(self) -> None:
        """Begin to write what is captured; nothing where that has begun."""
        if self.capture is not None:
            self.capture.write(self.copier)

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
        if capture.handed_in:  # else this is a part of the save itself
            self._training.pacer.mark()
        self.capture = None

        def written() -> None:
            try:
                capture.wait()
            except TornError:
                self.copier.overlap_no_more()
                raise
            if agreed.leads and capture.target.exists():
                raise FileExistsError(f"{capture.target} was made by something else meanwhile")
            capture.before()

        # In two rounds: the folder has its name once every rank has written, and goes on its way once it has its name.
        failed = agreed.failure(written) or agreed.failure(
            lambda: files.rename(capture.folder, capture.target, flush=False) if agreed.leads else None
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
        if self._inherited:
            return
        try:
            capture = self.capture
            if capture is not None and not self.agreed.alone:
                self.capture = None
                capture.give_up()
                self._lose(capture, "the training broke off before all ranks had written it")
            self.settle(wait=True)
        finally:
            self._trouble.off = True
            self.copier.close()

    def forget(self) -> None:
        """In a forked child: what is captured is the parent's to write, and the memory isn't this process's."""
        self.capture, self._inherited = None, True

    def prepare(self) -> None:
        """Make the memory ready beside the training, once the optimizer has made its state; once."""
        looked, self._looked = self._looked, True
        if not looked and not self._trouble.off and self._trainer.args.should_save:
            self.copier.prepare(size_of(self._tensors()))

    # How ---------------------------------------------------------------------------------------------------

    def _takes(self, target: Path) -> bool:
        """Tell whether the save that is coming can be captured."""
        takes = self._trouble.take()
        # What has begun to write to this very folder is told nothing of another one.
        return takes and not target.exists()

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the tensors of which a checkpoint consists, as this rank holds them."""
        trainer = self._trainer
        adapter = hasattr(trainer.model, "peft_config")  # its checkpoint doesn't hold the base model
        return (*stepped(trainer), *(() if adapter else others(trainer)))

    def _is_large(self) -> bool:
        """Tell whether recording what a save consists of may be worth its own 2 ms.

        What is gathered in a save is larger than what this rank holds of it, by an unknown amount.
        """
        return gathers(self._trainer) or not is_small(self._tensors(), copier.SMALL)

    def _ends(self) -> bool:
        """Tell whether this is the last save, behind which nothing is computed: it is written before it returns."""
        control, state = self._trainer.control, self._trainer.state
        return bool(control.should_training_stop or state.global_step >= state.max_steps)

    def _copy(self, recorded: list[Recorded]) -> StateCopy | None:
        """Begin to copy what recorded files consist of; None where that is so little that it isn't worth it."""
        storages = [storage for one in recorded for storage in one.storages()]
        if sum(storage.nbytes() for storage in storages) < copier.SMALL:
            return None
        return self.copier.copy(storages, stepped(self._trainer), others(self._trainer))

    def _made(self, folder: Path) -> bool:
        """Make the folder to write to; return False where the disk refuses it, as it does stock's save."""
        try:
            if self.agreed.leads:
                files.remove_tree(folder)
                folder.mkdir(parents=True)
        except OSError:
            return False
        return True

    def _rotate(self, rotations: list[Callable[[], object]]) -> None:
        """Make up for stock's rotation. Training doesn't wait for the deletion: 0.15 s for a checkpoint of 600 MB."""
        output_dir = self._training.session.output_dir
        with deleting(lambda folder: take_out(folder, output_dir)):
            for one in rotations:
                one()
        self.copier.submit(lambda: clear_trash(output_dir))

    def _drop(self, folder: Path) -> None:
        if self.agreed.leads:
            files.remove_tree(folder)

    def _lose(self, capture: Capture, failed: str) -> None:
        """Say that a captured checkpoint is lost; the next one is saved as stock does. On all ranks alike."""
        self._drop(capture.folder)
        self._best.lose(capture.step)
        self._training.lost()
        self._trouble.lose(capture.target.name, capture.step, failed)
