"""A loop's saves beside its training: captured, written, and there by one rename.

1. **Capture** (training thread): the loop's files are written as ever, into a folder of ours,
   ``_vaultlayer/pending-…``. The large ones aren't written but recorded, and what they consist of is copied
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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.loops.async_facts import (
    all_tensors,
    loop_facts,
    others,
    place,
    places,
    plain_optimizers,
    size_of,
    stepped,
)
from vaultlayer_hf.loops.async_fit import LoopFit, choose_for_loop
from vaultlayer_hf.loops.folder import LoopFiles
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.session.output_dir import PENDING
from vaultlayer_hf.session.save.full_disk import is_disk_trouble
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.state.capture.arena import Arena
from vaultlayer_hf.state.capture.copying import StateCopy
from vaultlayer_hf.state.capture.memory import fits, free_memory
from vaultlayer_hf.state.capture.recorded import Recorded, copied, recording
from vaultlayer_hf.vault.snapshot import LOCAL

SMALL = 32 * 2**20
"""Bytes of state below which training waits for the files: that takes milliseconds, and they are there the sooner."""
_FAILURES = 2
"""Saves that may fail beside the training until it waits for all later ones."""


@dataclass
class _Capture:
    """A checkpoint that has been captured, and hasn't appeared yet."""

    folder: Path
    target: Path
    step: int
    copy: StateCopy
    written: Future[Save]


class AsyncLoopSaves:
    """The saves of one loop. On the training thread.

    Args:
        training: what its checkpoints are committed by.
        state: the objects of the training.
        loop_files: what a checkpoint of it consists of.
        fit: how they run; not "waiting".
    """

    def __init__(self, training: Training, state: Stateful, loop_files: LoopFiles, fit: LoopFit) -> None:
        self._training, self._state, self._files, self._fit = training, state, loop_files, fit
        self._arena = Arena(pinned=torch.cuda.is_available())
        self._thread = ThreadPoolExecutor(1, "vaultlayer-save")
        self._prepared: Future[None] | None = None
        self._looked = False
        self._capture: _Capture | None = None
        self._wait_next = self._off = False
        self._failures = 0
        self._hooks: list[Any] = []
        for one in plain_optimizers(state) if fit.mode == "overlapped" else ():
            self._hooks += [
                one.register_step_pre_hook(lambda *_: self._before_step()),
                one.register_step_post_hook(lambda *_: self._after_step()),
            ]
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
        wait, self._wait_next = self._wait_next, False
        if self._off or wait or target.exists() or size_of(all_tensors(self._state)) < SMALL:
            return False
        step = int(target.name.rpartition("-")[2])
        folder = self._training.session.output_dir / LOCAL / f"{PENDING}{target.name}"
        recorded: list[Recorded] = []
        try:
            files.remove_tree(folder)
            folder.mkdir(parents=True)
            also(folder)
            with recording(recorded, places()):
                self._files.write(folder, step, figures, rank=0, world_size=1, digests=False)
            copy = self._copy(recorded)
            copy_of = _copy_of(copy)
            digest = self._files.digests_later(folder, copy_of)
            save = self._files.save_later(target, step, loss, copy_of)
            if self._fit.mode == "copied":
                copy.wait()
            self._capture = _Capture(folder, target, step, copy, self._submit(copy, recorded, digest, save))
        except (
            Exception
        ) as error:  # whatever it is: where training waits for the files it is raised too, or they are there
            files.remove_tree(folder)
            if not is_disk_trouble(error, folder):
                self._turn_off(
                    str(error) if isinstance(error, _NoRoomError) else f"{type(error).__name__}: {error}"
                )
            return False
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
        try:
            save = capture.written.result()
            self._capture = None
            if capture.target.exists():
                raise FileExistsError(f"{capture.target} was made by something else meanwhile")
            self._training.note_written(save)  # so that a kill behind the rename doesn't lose it
            files.rename(capture.folder, capture.target)
        except Exception as error:
            self._capture = None
            self._lose(capture, error)
            return False
        self._training.save(save, captured=True)
        return True

    def prepare(self) -> None:
        """Make the memory ready beside the training, once the optimizer has made its state; once."""
        looked, self._looked = self._looked, True
        if looked:
            return
        try:
            size = size_of(all_tensors(self._state))
        except Exception as error:  # objects of the script's own may answer in any way
            self._turn_off(f"what is trained can't be looked into: {type(error).__name__}: {error}")
            return
        if size >= SMALL:
            self._prepared = self._thread.submit(self._reserve, size + size // 50 + 2**20)

    def close(self) -> None:
        """Settle what is captured, and give memory and thread back. Safe to call twice. Raises FencedError."""
        atexit.unregister(self.close)
        hooks, self._hooks = self._hooks, []
        try:
            self.settle(wait=True)
        finally:
            for hook in hooks:
                hook.remove()
            self._off = True
            self._thread.shutdown()
            self._arena.release()

    def _before_step(self) -> None:
        if self._capture is not None:
            try:
                self._capture.copy.hold_device()
            except Exception:  # told where the checkpoint would appear
                pass

    def _after_step(self) -> None:
        if self._capture is not None:
            self._capture.copy.note_step()

    def _copy(self, recorded: list[Recorded]) -> StateCopy:
        """Begin to copy what recorded files consist of."""
        beside: set[int] = set()
        watched: list[torch.Tensor] = []
        if self._fit.mode == "overlapped":
            changed = list(stepped(self._state))
            watched = [one for one in changed if one.requires_grad]
            beside = set(map(place, changed)) - set(map(place, others(self._state)))
        storages = [storage for one in recorded for storage in one.storages()]
        copy = StateCopy(self._arena, storages, beside=beside)
        if self._prepared is not None:
            self._prepared.result()
        self._reserve(copy.size)
        copy.start(watched)
        return copy

    def _reserve(self, size: int) -> None:
        """Have the arena hold ``size`` bytes. Raises _NoRoomError where too little memory is free."""
        lacking, free = size - self._arena.size, free_memory()
        if lacking > 0 and not fits(lacking, free):
            raise _NoRoomError(
                f"the copy needs {size / 2**20:.0f} MiB of host memory, and {(free or 0) / 2**20:.0f} are free"
            )
        self._arena.reserve(size)

    def _submit(
        self, copy: StateCopy, recorded: list[Recorded], digest: Callable[[], None], save: Callable[[], Save]
    ) -> Future[Save]:
        """Have the files written by the thread that writes."""

        def run() -> Save:
            copy.wait()
            for one in recorded:
                one.write(copy.of)
                files.fsync_file(one.path)
                if one.final is not None:
                    files.rename(one.path, one.final)
            digest()
            return save()

        try:
            return self._thread.submit(run)
        except RuntimeError:  # the interpreter is ending: no thread takes anything more
            done: Future[Save] = Future()
            try:
                done.set_result(run())
            except Exception as error:
                done.set_exception(error)
            return done

    def _lose(self, capture: _Capture, error: Exception) -> None:
        """Say that a captured checkpoint is lost; training waits for the next one's files."""
        files.remove_tree(capture.folder)
        session = self._training.session
        exposure = f"; {session.uploader.exposure()}" if session.uploader is not None else ""
        reason = f"it couldn't be written beside the training: {type(error).__name__}: {error}"
        session.events.warn(
            EventKind.ABANDON,
            f"{capture.target.name} isn't committed, and training goes on: {reason}{exposure}",
            step=capture.step,
            reason=reason,
        )
        self._wait_next = True
        self._failures += 1
        if self._failures >= _FAILURES:
            self._turn_off(reason)

    def _turn_off(self, reason: str) -> None:
        self._off = True
        _say(self._training, LoopFit("waiting", reason))


class _NoRoomError(Exception):
    """There is too little memory for a copy."""


def begin_async_saves(training: Training, state: Stateful, loop_files: LoopFiles) -> AsyncLoopSaves | None:
    """Return what saves beside this loop; None where it isn't asked for, or can't be, which is said."""
    session = training.session
    if session.settings.async_save != "auto":
        return None
    try:
        fit = choose_for_loop(loop_facts(state, session.ranks.world_size))
    except Exception as error:  # objects of the script's own may answer in any way
        fit = LoopFit("waiting", f"what is trained can't be looked into: {type(error).__name__}: {error}")
    _say(training, fit)
    return AsyncLoopSaves(training, state, loop_files, fit) if fit.mode != "waiting" else None


def _say(training: Training, fit: LoopFit) -> None:
    session = training.session
    if fit.text and session.ranks.rank == 0:
        session.events.warn_once("async_save", EventKind.NOTICE, fit.text)


def _copy_of(copy: StateCopy) -> Callable[[torch.Tensor], torch.Tensor]:
    def of(tensor: torch.Tensor) -> torch.Tensor:
        """Return what stands for a tensor of the training in the copy; one that isn't in there is copied at once."""
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
        if plain and copy.holds(tensor.untyped_storage()):
            return copied(tensor, copy.of)
        return tensor.detach().clone()

    return of
