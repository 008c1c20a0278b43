"""The Checkpointer: a vault for training loops of one's own, with Accelerate or with nothing but PyTorch.

A checkpoint says how many steps are done, which is the number of the first step still to do: ``resume()`` returns
it, so that ``for step in range(start, total)`` is never off by one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import SettingsError, VaultLayerError
from vaultlayer_hf.loops.arguments import default_folder, settings_of, state_of
from vaultlayer_hf.loops.data import LoopData
from vaultlayer_hf.loops.files import of_others
from vaultlayer_hf.loops.folder import LoopFolder
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.loops.passes import Batches, Passes
from vaultlayer_hf.session.process_group import current_ranks
from vaultlayer_hf.session.save.rounds import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.resume import resume
from vaultlayer_hf.session.stop.exits import leave
from vaultlayer_hf.session.training import Training
from vaultlayer_hf.session.wish import Wish
from vaultlayer_hf.state.layouts import missing_shards

_T = TypeVar("_T")


class Checkpointer:
    """Saves a training loop to a vault and resumes it from there.

        ckpt = Checkpointer("s3://bucket/my-run", model=model, optimizer=optimizer, save_every="200 steps")
        start = ckpt.resume()  # 0 on an empty vault
        for step in range(start, total):
            ...
            ckpt.step(loss=loss)
        ckpt.finish()

    With Accelerate give ``accelerator=``; a script that calls save_state already needs ``attach`` alone. All ranks
    make one and call it alike. Used as ``with Checkpointer(...) as ckpt:``, the end of the block calls
    ``finish()``, and an exception ``close()``.

    Args:
        vault: URI of the vault, or Settings that name it; None means ``VAULTLAYER_VAULT``.
        accelerator: whatever it has prepared, and what is registered for checkpointing, is saved and restored by its
            ``save_state`` and ``load_state``, in the layout of DDP, FSDP or DeepSpeed.
        model: without an accelerator: a Module; with or without DDP or torch.compile around it.
        optimizer, scheduler: objects with ``state_dict`` and ``load_state_dict``.
        dataloader: what ``steps()`` goes through where it is given no other.
        save_every: ``"5min"``, ``"200 steps"`` or that number alone, ``"auto"``, or ``"none"``: only by ``save()`` and
            ``finish()``. None: as Settings say, else ``"auto"``.
        output_dir: where checkpoint folders and snapshots lie, best on a local disk; None: one for this vault,
            ``checkpoints-<name>-<digest>`` beside the script.

    Attributes:
        finished: after ``resume()``: the step at which the run was finished, or None.

    Raises SettingsError, and VaultUriError for a URI that can't be meant.
    """

    def __init__(
        self,
        vault: str | os.PathLike[str] | Settings | None = None,
        *,
        accelerator: Any = None,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        dataloader: Iterable[Any] | None = None,
        save_every: str | int | None = None,
        output_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._settings = settings_of(vault, save_every)
        self._folder = Path(output_dir) if output_dir is not None else None
        self._state: Stateful = state_of(accelerator, model, optimizer, scheduler)
        self._loader = dataloader
        self._events = Events()
        self._position = LoopData(self._events)
        self._passes = Passes(self._position)
        self._due = False  # a save, when the epoch is over
        self._training: Training | None = None
        self._step = 0
        self._saved = 0  # the step of the newest checkpoint
        self._loss: Any = None
        self._ended = False
        self._attached = False
        self.finished: int | None = None

    # What a script calls -------------------------------------------------------------------------------

    def add(self, name: str, thing: Any) -> None:
        """Save and restore one more object with ``state_dict`` and ``load_state_dict``. Before ``resume()``.

        Of several ranks all get what rank 0's has saved.

        Raises SettingsError.
        """
        if self._session is not None:
            raise SettingsError(f"add({name!r}) comes too late: call it before resume()")
        self._state.add(name, thing)

    def resume(self) -> int:
        """Claim the vault, bring everything back, and return the first step still to do; 0 on an empty vault.

        Call it right before the loop: the random numbers go on from here. All ranks. Raises VaultUnreachableError,
        WrongModelError, NoUsableCheckpointError, NoSuchCheckpointError, ResumeError, RanksError: nothing was
        trained then, and nothing is started at step 0 in silence.
        """
        if self._session is not None:
            return self._step
        settings = self._settings
        if settings.local_keep_last is None:  # nobody else rotates here: the disk keeps as many as the vault
            settings = replace(settings, local_keep_last=settings.keep_last)
        with self._opened(settings, self._folder, self._content().missing) as (training, path):
            if path is not None:
                self._read(training.session, path)
        return self._step

    def attach(self, accelerator: Any) -> Path | None:
        """Lead the save_state and load_state of a script's own Accelerator through the vault; instead of ``resume()``.

        Call it when everything is prepared and registered for checkpointing. The newest checkpoint is restored to
        where the script had it, below ``output_dir`` (default: the accelerator's project_dir, else the current folder),
        and its folder returned; None on an empty vault. From then on ``load_state()`` loads it unless the script names
        another folder that is there, each ``save_state()`` is committed in the background, and ``end_training()`` ends
        with ``finish()``. All ranks. Raises what ``resume()`` raises.
        """
        if self._session is not None:
            raise SettingsError("attach() goes instead of resume(): call one of them, once")
        from vaultlayer_hf.loops.accelerator import Prepared
        from vaultlayer_hf.loops.hooks import OURS, Hooks, needed_of

        self._state = state = Prepared(accelerator)
        root = (self._folder or Path(accelerator.project_dir or ".")).absolute()

        def saved(step: int) -> None:
            self._step = self._saved = step

        def missing(paths: set[str], world_size: int) -> list[str]:
            return needed_of(state, paths, world_size)

        # Nobody asks after each step whether to save or to stop: signals do what they do without us.
        settings = replace(self._settings, save_every="none", signals="none", notices="none")
        with self._opened(settings, root / OURS, missing) as (training, path):
            hooks = Hooks(accelerator, training, state, root, path, saved, self.finish)
            if path is not None:
                saved(hooks.step)
        self._attached = True
        return hooks.folder

    @contextmanager
    def _opened(
        self, settings: Settings, folder: Path | None, missing: Callable[[set[str], int], list[str]]
    ) -> Iterator[tuple[Training, Path | None]]:
        """Claim the vault and give the folder to load, None on an empty vault; training begins behind the block."""
        wish = Wish(
            parameters=self._state.parameters(),
            missing=missing,
            wanted=lambda paths, ranks, written: {
                path for path in paths if not of_others(path, ranks, written)
            },
            refuse=self._state.refuse,
            localise=lambda folder, output_dir: {},
        )
        ranks = current_ranks(settings.part_timeout)
        folder = folder or default_folder(settings, ranks, self._events)
        session = Session(settings, folder, ranks=ranks, events=self._events, progress=sys.stderr.isatty())
        training = Training(session)
        self._position.rank, self._position.world_size = ranks.rank, ranks.world_size
        try:
            path = resume(session, wish)
            yield training, path
        except BaseException:
            training.close()
            raise
        self.finished = session.state.finished if path is not None else None
        training.begin(self._step)
        self._training = training

    def steps(
        self,
        dataloader: Iterable[Any] | None = None,
        start: int | None = None,
        *,
        epochs: int | None = None,
        total: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch), from the position in the data at which the run is.

        Goes through the data once, or ``epochs`` times, or until ``total`` steps are done, whichever comes first.
        Called once for each epoch, a call whose epoch is over yields nothing. Where several batches make a step, all
        have its number: it grows by ``step()``. Samplers with ``set_epoch`` get the number of the epoch.

        ``start``: what ``resume()`` has returned, for those who like to see it. Raises SettingsError.
        """
        self._looped("steps()")
        loader = dataloader if dataloader is not None else self._loader
        if loader is None:
            raise SettingsError("steps() needs a dataloader: give it one, or Checkpointer(dataloader=…)")
        if start is not None and self._passes.asked == 0 and start != self._step:
            raise SettingsError(
                f"steps(start={start}): this run goes on from step {self._step}; leave start out"
            )
        return self._passes.steps(loader, epochs, total, lambda: self._step)

    def epochs(self, epochs: Iterable[_T]) -> Iterator[_T]:
        """Yield the epochs that aren't over, for a script's own loop: ``for epoch in ckpt.epochs(range(10))``.

        Goes with ``batches()``. In the epoch that was under way, the code ahead of its batches runs again, with the
        random numbers that it had; a save that falls due at the last batch waits for the code behind.
        """
        self._looped("epochs()")
        return self._passes.epochs(epochs, self.finished is not None, self._save_if_due)

    def batches(self, dataloader: Iterable[Any]) -> Batches:
        """Return the batches of one pass, or what is left of it, for a script's own loop that calls ``step()``."""
        self._looped("batches()")
        return Batches(self._position, dataloader)

    @property
    def batches_done(self) -> int:
        """How many batches of the current pass are done: ``enumerate(ckpt.batches(loader), ckpt.batches_done)``."""
        return self._position.batches

    def _save_if_due(self) -> None:
        if self._due:
            self._due = False
            self.save()

    def step(self, loss: Any = None) -> None:
        """Note that a step is done, at its very end; saves when it is time to. All ranks.

        ``loss``: a number or a tensor, kept with the next checkpoint. Raises FencedError where another process has
        taken the vault. Where this process is about to be ended (SIGTERM, a notice of the cloud), saves if that still
        fits, waits for the upload, and raises SystemExit with exit code 75; on Ctrl-C likewise KeyboardInterrupt.
        """
        training = self._looped("step()")
        self._step += 1
        if loss is not None:
            self._loss = loss.detach() if hasattr(loss, "detach") else loss
        verdict = training.at_step(self._step)
        # What follows the last batch of an epoch belongs to it; told to end there is no time for it.
        self._due = verdict.save and verdict.stop is None and self._passes.at_end
        if verdict.save and not self._due:
            self.save()
        if verdict.stop is not None:
            training.flush()
            ending = training.ending
            self.close()
            if ending is not None:
                leave(ending.reason, ending.code)

    def save(self) -> None:
        """Save now, between two steps, and commit in the background. All ranks. Raises FencedError.

        Trouble of disk or storage costs this checkpoint, never the run, and is logged.
        """
        training = self._looped("save()")
        session = training.session
        if session.disabled:
            return
        folder = session.output_dir / f"checkpoint-{self._step}"
        training.before_save(folder)
        try:
            self._content().write(
                folder,
                self._step,
                self._figures() if session.ranks.rank == 0 else {},
                rank=session.ranks.rank,
                world_size=session.ranks.world_size,
            )
            self._saved = self._step
        except OSError as error:
            session.events.warn(
                EventKind.TROUBLE, f"{folder.name} can't be written: {error}", step=self._step
            )
        world_size = session.ranks.world_size

        def missing(found: Path, paths: set[str]) -> list[str]:
            return self._content().missing(paths, world_size) + missing_shards(found, paths)

        training.save(Save(folder, self._step, missing, self._state.parameters()))

    def finish(self) -> None:
        """Save what isn't saved yet, wait for its commit, and note in the vault that the run is done. All ranks.

        Raises FencedError. Safe to call twice.
        """
        training = self._begun("finish()")
        if self._ended:
            return
        if self._step > self._saved:
            self.save()
        if training.flush():
            training.finish(self._step, self._figures() or dict(training.session.state.metrics))
        self.close()

    def close(self) -> None:
        """Wait for what is under way, and stop; the run isn't noted as done. Safe to call twice."""
        self._ended = True
        self._position.leave()
        if self._training is not None:
            self._training.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._training is not None:
            self.finish()
        else:
            self.close()

    # Inside --------------------------------------------------------------------------------------------

    @property
    def _session(self) -> Session | None:
        return self._training.session if self._training is not None else None

    def _begun(self, what: str) -> Training:
        if self._training is None:
            raise SettingsError(f"{what} needs to know where the run is: call resume() first")
        return self._training

    def _looped(self, what: str) -> Training:
        if self._attached:
            raise SettingsError(
                f"{what} isn't for a script whose Accelerator is attached: it saves by save_state()"
            )
        return self._begun(what)

    def _figures(self) -> dict[str, float]:
        return {} if self._loss is None else {"loss": float(self._loss)}

    def _read(self, session: Session, folder: Path) -> None:
        """Load a checkpoint; where it fails on one rank, that failure is raised on all."""
        failure: VaultLayerError | None = None
        try:
            self._step = self._saved = self._content().read(folder, rank=session.ranks.rank)
        except VaultLayerError as error:
            failure = session.ranks.named(error)
        for found in session.ranks.gather(failure):
            if found is not None:
                raise found

    def _content(self) -> LoopFolder:
        return LoopFolder(self._state, self._position)
