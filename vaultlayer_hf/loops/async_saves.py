"""A loop's saves beside its training: captured, written, and there by one rename.

1. **Capture** (training thread): the loop's files are written as ever, into a folder of ours,
   ``pending-…`` in the run's workspace. The large ones aren't written but recorded, and what they consist of is copied
   (state/capture/). What is small is written at once, so that the place in the data, the random numbers and the
   variables that the loop carries are those of the save, not those of the writing. Training goes on.
2. **Write** (a thread of ours): the large files, the digests, and whether the state is finite, from the copy.
3. **Appear** (training thread, at the end of a later step): the folder gets its name ``checkpoint-N`` by one rename,
   whole, and the checkpoint goes the way of every other one.

The optimizer's step waits for the copy. What else changes a parameter meanwhile is found out, and costs the checkpoint.
One copy is in flight at most: a save that comes while one is being written waits for it.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.base.forks import forget_in_children
from vaultlayer_hf.loops.async_facts import all_tensors, loop_facts, others, places, plain_optimizers, stepped
from vaultlayer_hf.loops.async_fit import choose_for_loop
from vaultlayer_hf.loops.folder import LoopFiles
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.session.output_dir import PENDING
from vaultlayer_hf.session.save.async_trouble import AsyncTrouble, in_words
from vaultlayer_hf.session.save.full_disk import is_disk_trouble
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture import copier
from vaultlayer_hf.state.capture.copier import Copier
from vaultlayer_hf.state.capture.copying import TornError
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.recorded import Recorded, recording
from vaultlayer_hf.state.capture.stepped import size_of
from vaultlayer_hf.vault.workspace import workspace


@dataclass
class _Capture:
    """A checkpoint that has been captured, and hasn't appeared yet.

    Attributes:
        folder, target: where it is, and where it will be.
        step: at which its state was captured.
        written: what the session is told of it, and the seconds for which it was written.
    """

    folder: Path
    target: Path
    step: int
    written: Future[tuple[Save, float]]


class AsyncLoopSaves:
    """The saves of one loop. On the training thread.

    Args:
        training: what its checkpoints are committed by.
        state: the objects of the training.
        loop_files: what a checkpoint of it consists of.
        fit: how they run; not "waiting".
        trouble: what says that one is lost, or that they are waited for.
    """

    def __init__(
        self, training: Training, state: Stateful, loop_files: LoopFiles, fit: Fit, trouble: AsyncTrouble
    ) -> None:
        self._training, self._state, self._files, self._trouble = training, state, loop_files, trouble
        self._copier = Copier(fit, trouble.say, training.pacer.waited)
        self._looked = False
        self._capture: _Capture | None = None
        self._hooks: list[Any] = []
        for one in plain_optimizers(state) if fit.mode == "overlapped" else ():
            self._hooks += [
                one.register_step_pre_hook(lambda *_: self._copier.before_change()),
                one.register_step_post_hook(lambda *_: self._copier.after_step()),
            ]
        self._inherited = False
        forget_in_children(self.forget)
        atexit.register(self.close)  # ahead of the training's own end

    def save(
        self, target: Path, figures: dict[str, float], also: Callable[[Path], None], loss: float | None
    ) -> bool:
        """Capture a checkpoint; return False where training is to wait for its files, and nothing of it is left.

        Args:
            target: its folder, ``checkpoint-N``.
            figures: numbers that are kept with it.
            also: writes what else belongs to it into a folder.
            loss: the newest, where it is known.
        """
        takes = self._trouble.take() and not target.exists()
        if not takes or size_of(all_tensors(self._state)) < copier.SMALL:
            return False
        step = int(target.name.rpartition("-")[2])
        folder = workspace(self._training.session.output_dir) / f"{PENDING}{target.name}"
        recorded: list[Recorded] = []
        try:
            files.remove_tree(folder)
            folder.mkdir(parents=True)
            also(folder)
            with recording(recorded, places()):
                at = self._training.session.output_dir
                self._files.write(folder, step, figures, rank=0, world_size=1, output_dir=at, digests=False)
            storages = [storage for one in recorded for storage in one.storages()]
            copy = self._copier.copy(storages, stepped(self._state), others(self._state))
            digest = self._files.digests_later(folder, copy.later)
            save = self._files.save_later(target, step, loss, copy.later)
        except Exception as error:
            # Whatever it is: it is raised where training waits, too, or the files are there.
            files.remove_tree(folder)
            if not is_disk_trouble(error, folder):
                self._trouble.turn_off(in_words(error))
            return False

        def write() -> tuple[Save, float]:
            begin = time.monotonic()
            copy.wait()
            written = self._copier.writer.write(recorded, copy.of)
            digest()
            known = {path.relative_to(folder).as_posix(): one for path, one in written.items()}
            return replace(save(), known=known), time.monotonic() - begin

        self._capture = _Capture(folder, target, step, self._copier.submit(write))
        return True

    def settle(self, *, wait: bool) -> bool:
        """Have a captured checkpoint appear, once it is written; return False where it is lost. Raises FencedError.

        Args:
            wait: whether to wait until it is written.
        """
        capture = self._capture
        if capture is None or not (wait or capture.written.done()):
            return True
        self._training.pacer.mark()
        self._capture = None
        try:
            save, seconds = capture.written.result()
            if capture.target.exists():
                raise FileExistsError(f"{capture.target} was made by something else meanwhile")
            # Noted ahead of its name, so that a kill behind the rename doesn't lose it.
            self._training.note_written(replace(save, folder=capture.folder))
            files.make_folder(capture.target.parent)
            files.rename(capture.folder, capture.target, flush=False)
        except Exception as error:
            if isinstance(error, TornError):
                self._copier.overlap_no_more()
            files.remove_tree(capture.folder)
            self._training.lost()
            self._trouble.lose(capture.target.name, capture.step, in_words(error))
            return False
        self._training.save(save, beside=seconds)
        return True

    def prepare(self) -> None:
        """Make the memory ready beside the training, once the optimizer has made its state; once."""
        looked, self._looked = self._looked, True
        if looked or self._trouble.off:
            return
        try:
            size = size_of(all_tensors(self._state))
        except Exception as error:  # objects of the script's own may answer in any way
            self._trouble.turn_off(f"what is trained can't be looked into: {type(error).__name__}: {error}")
            return
        if size >= copier.SMALL:
            self._copier.prepare(size)

    def forget(self) -> None:
        """In a forked child: what is captured is the parent's to write, and the memory isn't this process's."""
        self._capture, self._inherited = None, True

    def close(self) -> None:
        """Settle what is captured, and give memory and thread back. Safe to call twice. Raises FencedError."""
        atexit.unregister(self.close)
        if self._inherited:
            return
        hooks, self._hooks = self._hooks, []
        try:
            self.settle(wait=True)
        finally:
            for hook in hooks:
                hook.remove()
            self._trouble.off = True
            self._copier.close()


def begin_async_saves(training: Training, state: Stateful, loop_files: LoopFiles) -> AsyncLoopSaves | None:
    """Return what saves beside this loop; None where it isn't asked for, or can't be, which is said."""
    session = training.session
    if session.settings.async_save != "auto":
        return None
    try:
        fit = choose_for_loop(loop_facts(state, session.ranks.world_size))
    except Exception as error:  # objects of the script's own may answer in any way
        fit = Fit("waiting", f"what is trained can't be looked into: {type(error).__name__}: {error}")
    trouble = AsyncTrouble(session)
    trouble.say(fit)
    return AsyncLoopSaves(training, state, loop_files, fit, trouble) if fit.mode != "waiting" else None
