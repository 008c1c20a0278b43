"""The Checkpointer: a vault for training loops of one's own, with Accelerate or with nothing but PyTorch.

A checkpoint says how many steps are done, which is the number of the first step still to do: ``resume()`` returns
it, so that ``for step in range(start, total)`` is never off by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from vaultlayer_hf.base.events import Events
from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.loops.arguments import settings_of, state_of
from vaultlayer_hf.loops.keepable import Keepable
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.loops.passes import Batches
from vaultlayer_hf.loops.running import RunningLoop
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.state.asked import Asked
from vaultlayer_hf.stores.uri import parse_vault

if TYPE_CHECKING:
    from vaultlayer_hf.loops.hooks import AttachedScript

_T = TypeVar("_T")


class Checkpointer(Keepable):
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
        self._run: RunningLoop | AttachedScript | None = None
        self._asked: Asked | None = None
        self.finished: int | None = None

    def __repr__(self) -> str:
        where = f"at step {self._run.step}" if self._run is not None else "not resumed yet"
        where = f"ended {where}" if self._run is not None and self._run.ended else where
        address = parse_vault(str(self._settings.vault))
        return f"Checkpointer({str(address)!r}, save_every={self._settings.save_every!r}; {where})"

    # What a script calls -------------------------------------------------------------------------------

    def add(self, name: str, thing: Any) -> None:
        """Save and restore one more object with ``state_dict`` and ``load_state_dict``. Before ``resume()``.

        None is passed over: what an option leaves out. Of several ranks all get what rank 0's has saved.

        Raises SettingsError.
        """
        if self._run is not None and not self._run.ended:
            raise SettingsError(f"add({name!r}) comes too late: call it before resume()")
        self._state.add(name, thing)

    def resume(self) -> int:
        """Claim the vault, bring everything back, and return the first step still to do; 0 on an empty vault.

        Call it right before the loop: the random numbers go on from here. Called again between two steps of a loop that
        is under way, it returns the step at which that is; where the loop has ended, or an error has left it within a
        step, it goes on from the newest checkpoint: for a notebook's cell that is run again, say. All ranks.

        Raises VaultUnreachableError, WrongModelError, NoUsableCheckpointError, NoSuchCheckpointError, ResumeError,
        RanksError: nothing was trained then, and nothing is started at step 0 in silence.
        """
        if isinstance(self._run, RunningLoop) and self._run.goes_on:
            if not self._run.broken_off:
                self._run.passes.begin_again()
                return self._run.step
            # Weights, gradients and variables may be between two steps: nobody knows where in it the loop was left.
            self._run.interrupted = True
        if self._run is not None:
            self._run.close()
        settings = self._settings
        if settings.local_keep_last is None:  # nobody else rotates here: the disk keeps as many as the vault
            settings = replace(settings, local_keep_last=settings.keep_last)
        if self._asked is None:  # once: behind a first start the objects hold what the loop has made of them
            self._asked = self._state.asked(self._loader)
        earlier = self._run
        run = RunningLoop(settings, self._folder, self._state, self._asked, self._events)
        if isinstance(earlier, RunningLoop) and earlier.interrupted:
            run.carried.take_over(earlier.carried)
        self._run, self.finished = run, run.finished
        return run.step

    def carry(self, variables: Callable[[], dict[str, Any]], *, in_pass: bool = False) -> tuple[Any, ...]:
        """Keep variables that the loop hands on from one round to the next, and return them as they were.

            ckpt.resume()
            rate, patience = ckpt.carry(lambda: {"rate": rate, "patience": patience})

        Each save calls ``variables`` and keeps, on each rank, what it returns. Returned are the values of the
        checkpoint that was resumed; those of now where there is none, or it doesn't know the name. A random generator
        of torch, numpy or Python, anything with ``state_dict`` and any object of a class of the script's own stays the
        same object and gets its state back; all else must be picklable, and is named in the log where it isn't.

        Right behind ``resume()``. ``in_pass``: for variables of one pass through the data, right ahead of its batches;
        they are forgotten behind it. Raises ResumeError for an object that can't take the state that was saved of it.
        """
        run = self._looped("carry()")
        if in_pass and run.position.passes_over:  # those of the pass that was under way come later
            return tuple(variables().values())
        return run.carried.carry(variables, in_pass)

    def attach(self, accelerator: Any) -> Path | None:
        """Lead the save_state and load_state of a script's own Accelerator through the vault; instead of ``resume()``.

            accelerator.register_for_checkpointing(progress)
            restored = Checkpointer("s3://bucket/my-script").attach(accelerator)
            if restored is not None:
                accelerator.load_state()
            ...
            accelerator.save_state()  # as before: committed in the background
            accelerator.end_training()

        Call it when everything is prepared and registered for checkpointing. The newest checkpoint is restored to
        where the script had it, below ``output_dir`` (default: the accelerator's project_dir, else the current folder),
        and its folder returned; None on an empty vault. From then on ``load_state()`` loads it, or what was saved
        since, unless the script names another folder that is there; each ``save_state()`` is committed in the
        background, and ``end_training()`` ends with ``finish()``. After ``finish()`` or ``close()`` the Accelerator has
        its own methods again. All ranks.
        Raises what ``resume()`` raises.
        """
        if self._run is not None and not self._run.ended:
            raise SettingsError("attach() goes instead of resume(): call one of them, once")
        from vaultlayer_hf.loops.hooks import AttachedScript

        root = (self._folder or Path(accelerator.project_dir or ".")).absolute()
        run = AttachedScript(accelerator, self._settings, root, self._events)
        self._run, self.finished = run, run.finished
        return run.folder

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
        Called once for each epoch, a call whose epoch is over yields nothing. Behind an interruption (Ctrl-C) it
        resumes first, as a notebook's cell that is run again needs it. Where several batches make a step, all have its
        number: it grows by ``step()``. Samplers with ``set_epoch`` get the number of the epoch.

        ``start``: what ``resume()`` has returned, for those who like to see it. Raises SettingsError.
        """
        run = self._looped("steps()", again=True)
        loader = dataloader if dataloader is not None else self._loader
        if loader is None:
            raise SettingsError("steps() needs a dataloader: give it one, or Checkpointer(dataloader=…)")
        if start is not None and run.passes.asked == 0 and start != run.step:
            raise SettingsError(
                f"steps(start={start}): this run goes on from step {run.step}; leave start out"
            )
        run.note_data(loader)
        return run.passes.steps(loader, epochs, total, lambda: run.step)

    def epochs(self, epochs: Iterable[_T]) -> Iterator[_T]:
        """Yield the epochs that aren't over, for a script's own loop: ``for epoch in ckpt.epochs(range(10))``.

        Goes with ``batches()``. In the epoch that was under way, the code ahead of its batches runs again, with the
        random numbers that it had; a save that falls due at the last batch waits for the code behind.
        """
        run = self._looped("epochs()", again=True)
        return run.passes.epochs(epochs, run.ends_epochs, run.save_if_due)

    def batches(self, dataloader: Iterable[Any]) -> Batches:
        """Return the batches of one pass, or what is left of it, for a script's own loop that calls ``step()``.

        Outside of ``epochs()`` the first pass of a run that was finished before has none: it is over.
        """
        run = self._looped("batches()")
        run.note_data(dataloader)
        return Batches(run.passes, run.position, dataloader, self.finished is not None)

    @property
    def batches_done(self) -> int:
        """How many batches of the current pass are done: ``enumerate(ckpt.batches(loader), ckpt.batches_done)``."""
        return self._run.position.batches_done if isinstance(self._run, RunningLoop) else 0

    def step(self, loss: Any = None, *, last: bool = False) -> None:
        """Note that a step is done, at its very end: after zero_grad(), too. Saves when it is time to. All ranks.

        Gradients that no optimizer has used are kept, as those of an update under way. ``loss``: a number or a tensor
        of one, kept with the next checkpoint. ``last``: the loop is about to leave its pass through ``batches()`` by
        ``break``, so a resume at this step does no more of it.

        Raises SettingsError for any other loss, and FencedError where another process has taken the vault. Where this
        process is about to be ended (SIGTERM, a notice of the cloud), saves if that still fits, waits for the upload,
        and raises SystemExit with exit code 75; on Ctrl-C likewise KeyboardInterrupt.
        """
        self._looped("step()").end_of_step(loss, last)

    def save(self) -> None:
        """Save now, between two steps, and commit in the background. All ranks. Raises FencedError.

        Trouble of disk or storage, or of an object that is saved, costs this checkpoint, never the run, and is logged.
        """
        self._looped("save()").save()

    def finish(self) -> None:
        """Save what isn't saved yet, wait for its commit, and note in the vault that the run is done. All ranks.

        A run whose end couldn't be saved isn't noted as done. Safe to call twice. Raises FencedError, and SettingsError
        where an error has ended the loop's cell in a notebook: that is no end of the run, and resume() goes on.
        """
        run = self._begun("finish()")
        if not run.ended:
            (self._looped("finish()") if isinstance(run, RunningLoop) else run).finish()

    def close(self) -> None:
        """Wait for what is under way, and stop; the run isn't noted as done. Safe to call twice."""
        if self._run is not None:
            self._run.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._run is not None:
            self.finish()
        else:
            self.close()

    def _begun(self, what: str) -> RunningLoop | AttachedScript:
        if self._run is None:
            raise SettingsError(f"{what} needs to know where the run is: call resume() first")
        return self._run

    def _looped(self, what: str, *, again: bool = False) -> RunningLoop:
        """Return the loop under way; ``again``: an interrupted one is resumed, as if its whole cell were run again."""
        if again and isinstance(self._run, RunningLoop) and self._run.interrupted:
            self.resume()
        run = self._begun(what)
        if not isinstance(run, RunningLoop):
            raise SettingsError(
                f"{what} isn't for a script whose Accelerator is attached: it saves by save_state()"
            )
        if run.ended or run.interrupted:
            end = "the end of this loop" if run.ended else "an error in the cell of this loop"
            newest = "call resume() again, which goes on from the newest checkpoint"
            raise SettingsError(f"{what} comes after {end} at step {run.step}: {newest}")
        run.touch()
        if again:
            run.settle_variables()
        return run
