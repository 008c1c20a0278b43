"""An Accelerator's own save_state and load_state, led through a vault: for scripts that call them already.

A folder that save_state has written is committed under the step that its name ends with, and remembers its name: a
later start finds it there again, and load_state loads it. Naming, rotation and registered objects stay accelerate's.
Links and restores lie in ``<project_dir>/.vaultlayer``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base import files
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.loops.accelerator import UPDATE_LOST, Prepared
from vaultlayer_hf.loops.asked import holds_of
from vaultlayer_hf.loops.files import read_about, write_about
from vaultlayer_hf.loops.folder import StateFiles
from vaultlayer_hf.loops.life import begin_training, end_training
from vaultlayer_hf.loops.pending_gradients import PendingGradients
from vaultlayer_hf.loops.script_folders import (
    OURS,
    link_tree,
    move_restored,
    named_from,
    own_number,
    remove_written,
    safe,
    stamps,
    step_of,
    target_of,
    unshare,
)
from vaultlayer_hf.session.save.abandoned import say_abandoned
from vaultlayer_hf.session.save.full_disk import is_disk_trouble
from vaultlayer_hf.session.save.writing import write_on_all
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.settings import Settings
from vaultlayer_hf.session.start.asked import keep_asked, say_what_differs
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.stepped import plain
from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.placed import SKIPPED, in_doubt, keeps_place, loaded_by_accelerate
from vaultlayer_hf.state.optimizer_errors import check_optimizers
from vaultlayer_hf.state.own_numbers import OwnNumbers, put_numbers, take_numbers
from vaultlayer_hf.vault.snapshot import LOCAL

_METHODS = ("save_state", "load_state", "skip_first_batches", "end_training")


class AttachedScript:
    """Sits in place of some of an Accelerator's own methods, such as save_state, until it is closed. All ranks.

    Args:
        accelerator: whose methods are replaced, on this object alone.
        settings: name the vault.
        root: the folder that the script's checkpoint folders are named from.
        events: where to tell what happens.

    Attributes:
        step: step of the newest checkpoint.
        folder: the newest checkpoint of the start, restored where the script had it; None on an empty vault.
        ended: whether it is closed.

    Raises what ``Checkpointer.resume`` does.
    """

    def __init__(self, accelerator: Any, settings: Settings, root: Path, events: Events) -> None:
        self._accelerator, self._root = accelerator, root
        prepared = Prepared(accelerator, attached=True)
        self._prepared, self._files, self._asked = prepared, StateFiles(prepared), prepared.asked(None)
        self._own: OwnNumbers | None = None  # of a fork: put back behind its load
        self._within: dict[Path, bool | None] = {}  # an update, when a folder was saved
        self._gradients = PendingGradients(lambda: map(plain, accelerator._optimizers))
        self.folder: Path | None = None
        self._newest: Path | None = None  # the same, and behind it what was saved here
        self.ended = self._loaded = False
        # Nobody asks after each step whether to save or to stop: signals do what they do without us.
        settings = replace(settings, save_every="none", signals="none", notices="none")
        self.training, step = begin_training(settings, root / OURS, self._files, events, self._put_back)
        self.step = step or 0
        if settings.async_save == "auto" and self.session.ranks.rank == 0:
            fit = Fit("waiting", "the script may read the folder of its own save_state right after it")
            events.warn_once("async_save waiting", EventKind.NOTICE, fit.text)
        self.finished: int | None = self.session.state.finished if step is not None else None
        self._save, self._load = accelerator.save_state, accelerator.load_state
        self._skip, self._end = accelerator.skip_first_batches, accelerator.end_training
        self._before = {name: vars(accelerator).get(name) for name in _METHODS}
        for name in _METHODS:
            setattr(accelerator, name, getattr(self, name))
        self._gradients.begin()

    @property
    def session(self) -> Session:
        """What this rank holds of the vault."""
        return self.training.session

    def load_state(self, input_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load what the script names, where it is there; else the newest, restored or saved since; say which."""
        named = Path(input_dir).expanduser() if input_dir is not None else None
        events, newest = self.session.events, self._newest
        if newest is None or (named is not None and named.is_dir()):
            if newest is not None and named is not None and named.resolve() != newest.resolve():
                events.info(
                    EventKind.NOTICE,
                    f"load_state({str(named)!r}) wins over {newest}, the newest of {self.session.address.uri}",
                )
        else:
            why = "no folder was named" if named is None else f"{named} isn't here"
            whence = "restored from the vault" if newest == self.folder else "saved by this run"
            events.info(EventKind.NOTICE, f"load_state() loads {newest}, {whence}: {why}")
            input_dir = str(newest)
        prepared, folder = self._prepared, Path(str(input_dir))
        with prepared.loading(folder):
            loaded = self._load(input_dir, *args, **kwargs)
            check_optimizers(prepared.optimizers)
        if self._own is not None and self.folder is not None and folder.resolve() == self.folder.resolve():
            said = put_numbers(self._own, prepared.optimizers, prepared.schedulers)
            self.session.warn_all(EventKind.NOTICE, said)
        for loader in self._accelerator._dataloaders:
            if keeps_place(base := base_of(loader)):  # by use_stateful_dataloader
                self._doubt(loaded_by_accelerate(base))
        noted = self._within.get(folder.resolve())  # earlier versions didn't note it
        if noted or (noted is None and prepared.within_update):
            self._doubt(UPDATE_LOST.format("save_state()"))
        self._loaded = True
        return loaded

    def skip_first_batches(self, dataloader: Any, num_batches: int = 0) -> Any:
        """Leave batches out as accelerate does, and say what that means for the numbers."""
        if self._loaded and num_batches:
            self._doubt(SKIPPED)
        return self._skip(dataloader, num_batches)

    def _doubt(self, words: str) -> None:
        if words and self.session.ranks.rank == 0:
            self.session.events.warn_once(words, EventKind.INEXACT, in_doubt([words]))

    def save_state(self, output_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Save as the script asks for, then commit the folder in the background.

        A full disk costs this checkpoint; any other error of accelerate's is the script's, as without us. Raises
        FencedError.
        """
        session = self.session
        if self.ended or session.disabled:
            return self._save(output_dir, *args, **kwargs)
        self.training.pacer.mark()  # accelerate's own part of a save keeps the script waiting, too
        self._say_passed_over()
        self._doubt(self._prepared.left_out)
        target = target_of(self._accelerator, output_dir, self._root)
        self._unshare(target)
        before = stamps(target) if session.leads_node else None
        location: Any = target
        error: Exception | None = None

        def write() -> None:
            nonlocal location, error
            error = None
            try:
                location = self._save(output_dir, *args, **kwargs)
            except Exception as found:
                error = None if is_disk_trouble(found, target) else found
                raise

        def remove() -> None:
            if error is None:
                remove_written(target, before)

        failed = write_on_all(session, target, write, remove=remove)
        if failed is None:
            self._commit(Path(location))
            return location
        session.next_seq()  # rounds are named by it: the next save's are others
        if error is not None:
            raise error
        say_abandoned(session, target.name, failed)
        return location

    def end_training(self, *args: Any, **kwargs: Any) -> Any:
        """End as accelerate does; the run is over, and the vault notes it."""
        if not self.ended:
            self.finish()
        return self._end(*args, **kwargs)

    def finish(self) -> None:
        """Wait for the uploads, and note in the vault that the run is done. Raises FencedError."""
        end_training(self.training, self.step, dict(self.session.state.metrics))
        self.close()

    def close(self) -> None:
        """Wait for what is under way, and put the Accelerator's own methods back; the run isn't noted as done."""
        self.ended = True
        self._gradients.leave()
        for name, before in self._before.items():
            if vars(self._accelerator).get(name) != getattr(self, name):
                continue  # somebody has put something around ours since: that calls us, and we pass through
            if before is None:
                delattr(self._accelerator, name)
            else:
                setattr(self._accelerator, name, before)
        self.training.close()

    def _say_passed_over(self) -> None:
        session = self.session
        if self.folder is not None and not self._loaded:
            session.events.warn_once(
                "passed over",
                EventKind.NOTICE,
                f"{session.address.uri} holds {self.folder.name}, and this run started without load_state(): "
                f"it is kept, and {session.address.uri}@{self.step} leads to it",
            )

    def _unshare(self, target: Path) -> None:
        session = self.session
        if self._accelerator.project_configuration.automatic_checkpoint_naming:
            return  # a new folder each time
        if session.leads_node:
            try:
                unshare(target)
            except OSError as error:
                session.events.warn(
                    EventKind.TROUBLE,
                    f"{target} is written over its snapshot, which may be given up: {error}",
                )
        if session.ranks.world_size > 1:
            try:
                session.ranks.gather(
                    None, tag=f"unshared/{session.coming_seq}", timeout=session.settings.part_timeout
                )
            except RanksError as error:
                session.events.warn(EventKind.TROUBLE, str(error))

    def _commit(self, location: Path) -> None:
        session, world_size = self.session, self.session.ranks.world_size
        self.step = session.step = step_of(location.name, self.step)
        tree = session.output_dir / f"checkpoint-{self.step}"
        failed = None
        self._note(location, within := self._gradients.exist or self._prepared.within_update)
        try:
            if session.leads_node:
                files.remove_tree(tree)
                link_tree(location, tree)
                keep_asked(tree, session, self._asked)
            if session.ranks.rank == 0:
                about: dict[str, Any] = {"step": self.step, "world_size": world_size, "versions": versions()}
                folder = str(named_from(self._root, location))
                write_about(tree, folder=folder, within_update=within, **about)
        except OSError as error:
            failed = f"{location} can't be linked to {tree}: {error}"
            session.events.warn(EventKind.TROUBLE, failed)
        self.training.save(self._files.save_of(tree, self.step, failed))
        if session.leads_node:
            files.remove_tree(tree)  # the snapshot has links of its own

    def _note(self, saved: Path, within: bool) -> None:
        """Note what was saved here: behind a resume that is the newest from now on."""
        self._within[saved.resolve()] = within
        if self.folder is None:
            return
        self._newest = saved.absolute()
        if self._newest.resolve() == self.folder.resolve():
            self._own = None  # it holds this run's own numbers

    def _put_back(self, session: Session, restored: Path) -> int:
        """Put a restored folder where the script had it, and return its step."""
        about: dict[str, Any] = {}
        session.ranks.on_every_rank(lambda: about.update(read_about(restored)))  # by all, before one moves it
        before = session.entered.before
        over = before is not None and before.finished == about["step"] and not session.goes_back
        fork = session.forked is not None
        holds = holds_of(self._asked, fork=fork)
        self._asked = say_what_differs(session, restored, self._asked, holds, over=over)
        self._own = take_numbers(self._prepared.optimizers, self._prepared.schedulers) if fork else None
        target = self._root / safe(str(about.get("folder", restored.name)))
        options = self._accelerator.project_configuration
        number = own_number(target.name) if options.automatic_checkpoint_naming else None
        aside = session.output_dir / LOCAL / "aside"
        session.ranks.on_every_rank(
            lambda: move_restored(restored, target, number, aside) if session.leads_node else None
        )
        if number is not None:
            options.iteration = number + 1
        self._within[target.resolve()] = about.get("within_update")
        self.folder = self._newest = target
        return int(about["step"])
