"""What the checkpoint folder of a loop holds: writing this rank's files, reading them, and saying what must be there.

``files.py`` says which files these are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.errors import NotLoadedError
from vaultlayer_hf.loops.accelerator import UPDATE_LOST
from vaultlayer_hf.loops.carried import Carried
from vaultlayer_hf.loops.data import LoopData
from vaultlayer_hf.loops.files import (
    ABOUT,
    OF_A_TRAINER,
    of_others,
    rank_files,
    read_about,
    saved_by_trainer,
    write_about,
)
from vaultlayer_hf.loops.objects import Stateful
from vaultlayer_hf.loops.other_optimizers import OtherOptimizers
from vaultlayer_hf.loops.pending_gradients import PendingGradients
from vaultlayer_hf.session.checkpoint_files import CheckpointFiles
from vaultlayer_hf.session.save.beside import names_beside
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.state.data.placed import in_doubt
from vaultlayer_hf.state.finite import nonfinite_later, nonfinite_state
from vaultlayer_hf.state.layouts import missing_shards
from vaultlayer_hf.state.loadable import Kind, LoadTrial
from vaultlayer_hf.state.model_identity import ModelIdentity
from vaultlayer_hf.state.model_modes import Modes, put_modes, take_modes
from vaultlayer_hf.state.object_files import read_state, write_state
from vaultlayer_hf.state.optimizer_errors import check_optimizers
from vaultlayer_hf.state.random_state import put_random_state, take_random_state
from vaultlayer_hf.state.saved_digests import digests_name, in_words, read_digests, state_differences

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("tensors", r"(.*/)?[^/]+\.safetensors"),
    ("json", rf"{re.escape(ABOUT)}|(.*/)?[^/]+\.index\.json"),
    (
        "archive",
        r"(model|optimizer|scheduler|loose_parameters|added_groups|left_gradients|data_\d+)\.pt|rng_state_\d+\.pth",
    ),
    (
        "archive",
        r"(pytorch_model|optimizer|scheduler)(_\d+)?\.bin|(random_states|custom_checkpoint)_\d+\.pkl",
    ),
)


def kind_of(path: str) -> Kind | None:
    """Return how a file of a loop's checkpoint is loaded; None: it isn't, or a resume does without it.

    What is within an archive is the script's business: a loop's own state may hold objects of any class.
    """
    return next((kind for kind, names in _KINDS if re.fullmatch(names, path)), None)


class StateFiles(CheckpointFiles):
    """The files of a training's state alone: what an attached script's save_state writes, and ``vaultlayer.json``.

    Args:
        state: the objects of the training.
    """

    def __init__(self, state: Stateful) -> None:
        self._state = state

    @property
    def model(self) -> ModelIdentity:
        """The identity of the model."""
        return self._state.model_identity()

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""
        if saved_by_trainer(paths):
            return [OF_A_TRAINER]
        return self._state.missing(paths, world_size) + ([] if ABOUT in paths else [ABOUT])

    def unloadable(self, folder: Path, paths: Collection[str]) -> list[str]:
        """Return what of these files of a folder can't be loaded, each with the reason. Never raises."""
        return LoadTrial(kind_of)(folder, paths)

    def wanted(self, paths: set[str], ranks: tuple[int, ...], *, world_size: int) -> set[str]:
        """Return those of these paths that ``ranks`` load: all but the other ranks' own."""
        return {path for path in paths if not of_others(path, ranks, world_size)}

    def refusal(self, paths: set[str], *, written: int, now: int) -> str:
        """Return why a checkpoint of ``written`` ranks can't be resumed on ``now``; empty where it can."""
        return self._state.refuse(paths, written, now)

    def unwritten(self, folder: Path, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a folder lacks that this run has just written: shards that the files name, too."""
        return self.missing(paths, world_size=world_size) + missing_shards(folder, paths)

    def save_of(self, folder: Path, step: int, failed: str | None, loss: float | None = None) -> Save:
        """Return what the session is told of a folder that was written; ``failed``: why it is lost, or None.

        ``loss``: the newest, where the script has told it.
        """
        parameters = self.model.parameters if failed is None else ()
        nonfinite = nonfinite_state(self._state.models(), self._state.optimizers, loss)
        return Save(folder, step, self, parameters, failed=failed, nonfinite=nonfinite)

    def save_later(
        self, folder: Path, step: int, loss: float | None, later: Callable[[Any], Callable[[], Any]]
    ) -> Callable[[], Save]:
        """Return what says the same of the state of now, on any thread, from the copy that ``later`` gives."""
        save = Save(folder, step, self, self.model.parameters)
        look = nonfinite_later(self._state.models(), self._state.optimizers, loss, later)
        return lambda: replace(save, nonfinite=look())


class LoopFiles(StateFiles):
    """The files of a Checkpointer's loop: the state, and each rank's random numbers and place in the data.

    Args:
        state: the objects of the training.
        position: where the loop is in its data.
        carried: the variables that it hands on from one round to the next.
        gradients: what its next update begins with.
        others: optimizers that train its parameters, and aren't saved.
        events: where to tell what was brought back.
    """

    def __init__(
        self,
        state: Stateful,
        position: LoopData,
        carried: Carried,
        gradients: PendingGradients,
        others: OtherOptimizers,
        events: Events,
    ) -> None:
        super().__init__(state)
        self._position, self._carried, self._events = position, carried, events
        self._gradients, self._others = gradients, others
        self._digested: tuple[int, ...] = (0,)
        """Ranks that have written digests of what they hold, at the last save."""
        self.beside: tuple[str, Sequence[str]] | None = None
        """Of the checkpoint that was read: its name, and what it has noted of the output folder."""

    def write(
        self,
        folder: Path,
        step: int,
        figures: dict[str, float],
        *,
        rank: int,
        world_size: int,
        output_dir: Path,
        digests: bool = True,
    ) -> None:
        """Write this rank's files; rank 0's ``vaultlayer.json`` comes last. All ranks.

        ``figures``: numbers kept with the checkpoint, such as the loss, by name. ``output_dir``: where checkpoints lie;
        what else is there is noted. ``digests``: whether to write those of the state, too; else see ``digests_later``.
        Raises what the objects raise.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if unkept := self._state.unkept:
            self._events.warn_once(
                "added groups",
                EventKind.INEXACT,
                f"the optimizer was given groups of parameters in mid-run, and {unkept}. No start can go on from this "
                "checkpoint, or from later ones",
            )
        self._state.write(folder, rank)
        random_file, data_file = rank_files(rank)
        write_state(folder / random_file, take_random_state())
        modes = {name: take_modes(model) for name, model in self._state.models().items()}
        engine = self._state.engine
        loop: dict[str, Any] = {
            "carried": self._carried.state_dict(),
            "modes": modes,
            "gradients": {} if engine else self._gradients.state_dict(),
            "others": self._others.names,
        }
        if engine:
            loop["within_update"] = self._gradients.exist or self._state.within_update
        if rank == 0:
            loop["beside"] = names_beside(output_dir)
        write_state(folder / data_file, {**self._position.state_dict(), **loop})
        tensors = self._state.tensors(world_size)
        self._digested = tuple(range(world_size if tensors.sharded else 1))
        if digests and rank in self._digested:
            tensors.digests().write(folder, rank)
        if rank == 0:
            write_about(folder, step=step, world_size=world_size, versions=versions(), **figures)

    def digests_later(self, folder: Path, later: Callable[[Any], Callable[[], Any]]) -> Callable[[], None]:
        """Return what writes the digests of the state of now, on any thread, from the copy that ``later`` gives."""
        tensors = self._state.tensors(1).through(later)
        return lambda: tensors.through(lambda copy: copy()).digests().write(folder, 0)

    def read(self, folder: Path, *, rank: int, world_size: int) -> int:
        """Load everything, and return how many steps are done. All ranks.

        A rank that the checkpoint's run didn't have gets rank 0's place in the data, and keeps its own random numbers.
        Raises ResumeError (OtherRunError, NotLoadedError), and what the objects raise.
        """
        about = read_about(folder)
        if not self._state.engine:
            self._gradients.clear()
        self._state.read(folder)
        check_optimizers(self._state.optimizers)
        written = int(about["world_size"])
        self._check_loaded(folder, rank, written, world_size)
        random_file, data_file = rank_files(rank if rank < written else 0)
        position = read_state(folder / data_file)
        random = read_state(folder / random_file) if rank < written else None
        self._position.load_state_dict(position, random, written)
        self._carried.load_state_dict(position.get("carried", {}))  # earlier versions kept none
        self._put_modes(position.get("modes", {}))
        self._put_gradients(position, same=written == world_size, lead=rank == 0)
        if rank == 0 and (others := position.get("others")):
            doubt = f"{', '.join(others)} trained parameters of this loop, and the checkpoint doesn't hold its state"
            self._events.warn(EventKind.INEXACT, in_doubt([doubt]))
        self.beside = folder.name, position.get("beside", ())
        if random is not None:
            put_random_state(random)
        return int(about["step"])

    def _put_modes(self, modes: dict[str, Modes]) -> None:
        changed = []
        for name, model in self._state.models().items():
            if name in modes:
                changed += [f"{name}{parameter}" for parameter in put_modes(model, modes[name])]
        if changed:
            listed = f"{', '.join(changed[:3])}{f' and {len(changed) - 3} more' if len(changed) > 3 else ''}"
            self._events.info(
                EventKind.NOTICE,
                f"frozen or trained as when the checkpoint was saved (requires_grad): {listed}",
            )

    def _put_gradients(self, position: dict[str, Any], *, same: bool, lead: bool) -> None:
        engine, gradients = self._state.engine, position.get("gradients", {})
        doubts = [] if engine else self._gradients.load_state_dict(gradients, same=same)
        if doubts:
            self._events.warn(EventKind.INEXACT, in_doubt(doubts))
        # Earlier versions didn't note it: accelerate's own count, which came back with its state, tells of theirs.
        within = position.get("within_update", bool(engine) and self._state.within_update)
        within = within or (engine and any(one is not None for one in gradients.values()))
        if lead and within:
            self._events.warn(EventKind.INEXACT, in_doubt([UPDATE_LOST.format(engine or "its engine")]))

    def unwritten(self, folder: Path, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a folder lacks that this run has just written: digests, which earlier versions didn't write."""
        digests = map(digests_name, self._digested)
        lacking = super().unwritten(folder, paths, world_size=world_size)
        return lacking + [name for name in digests if name not in paths]

    def _check_loaded(self, folder: Path, rank: int, written: int, world_size: int) -> None:
        """Compare what is in memory now with what was saved. Raises NotLoadedError."""
        saved = read_digests(folder, rank)
        if saved is not None and saved.sharded:
            self._digested = tuple(range(written))
        if saved is None or not saved.comparable(world_size):
            return
        differences = state_differences(saved, self._state.tensors(world_size).digests())
        if differences:
            raise NotLoadedError(
                f"{folder} is whole, but what its objects have loaded isn't what was saved, and a run that goes on "
                f"from it would be another one: {in_words(saved, differences)}. Nothing was trained. Look at their "
                "load_state_dict: does it pass strict=False, or leave something out?"
            )

    def missing(self, paths: set[str], *, world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""
        if saved_by_trainer(paths):
            return [OF_A_TRAINER]
        needed = [name for rank in range(world_size) for name in rank_files(rank)]
        return super().missing(paths, world_size=world_size) + [name for name in needed if name not in paths]
