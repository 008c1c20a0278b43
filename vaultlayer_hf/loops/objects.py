"""What a loop's checkpoint consists of: its objects, by name, or whatever an Accelerator has prepared.

Both kinds answer the same questions: write this rank's files of a checkpoint, read them, say what must be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.loops import left_gradients, loose_parameters
from vaultlayer_hf.loops.added_groups import AddedGroups
from vaultlayer_hf.loops.asked import asked_of
from vaultlayer_hf.loops.files import read_model, whole, write_model
from vaultlayer_hf.state.asked import Asked
from vaultlayer_hf.state.data.placed import keeps_place, load_place
from vaultlayer_hf.state.model_identity import ModelIdentity, identity_of, joined
from vaultlayer_hf.state.object_files import (
    check_stateful,
    load_in_place,
    load_plain,
    read_state,
    write_state,
)
from vaultlayer_hf.state.saved_digests import StateTensors, list_tensors
from vaultlayer_hf.state.schedules import loading_schedules
from vaultlayer_hf.state.tensor_digests import model_tensors

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TAKEN = re.compile(
    r"model|optimizer|scheduler|loose_parameters|added_groups|left_gradients|rng_state_\d+|data_\d+|vaultlayer"
)


class Stateful(Protocol):
    """The state of a training, without its random numbers and its position in the data."""

    def add(self, name: str, thing: Any) -> None:
        """Take one more object in. Raises SettingsError."""

    def begin(self) -> None:
        """Note with what the training begins: ahead of the load of a start."""

    def model_identity(self) -> ModelIdentity:
        """Return the identity of the model."""

    def models(self) -> dict[str, torch.nn.Module]:
        """Return the models by name, each without its wrapper."""

    def write(self, folder: Path, rank: int) -> None:
        """Write what this rank has to write. All ranks. Raises OSError."""

    def read(self, folder: Path) -> None:
        """Load everything. All ranks. Raises ResumeError."""

    @property
    def doubts(self) -> list[str]:
        """What speaks against the numbers of an unbroken run behind a load, in words."""

    @property
    def within_update(self) -> bool:
        """Whether batches are counted of an update that is still to come."""

    @property
    def batches_an_update(self) -> int:
        """How many batches an update has at most, where that is known; else 0."""

    @property
    def unkept(self) -> str:
        """Why no start can go on from a checkpoint of now, in words; empty where one can."""

    def tensors(self, world_size: int) -> StateTensors:
        """List the tensors of the models', optimizers' and schedules' state on this rank."""

    def asked(self, loader: Any) -> Asked:
        """Return what the training is asked for; ``loader``: of its data, or None."""

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of the training."""

    @property
    def schedulers(self) -> list[Any]:
        """The schedules of its learning rates."""

    @property
    def engine(self) -> str:
        """What keeps the model in parts, or saves in a way of its own, such as ``"DEEPSPEED"``; else nothing."""

    @property
    def saved(self) -> list[Any]:
        """The objects that have files of their own in a checkpoint."""

    def missing(self, paths: set[str], world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""

    def refuse(self, paths: set[str], written: int, now: int) -> str:
        """Return why a checkpoint of ``written`` ranks can't be resumed on ``now``; empty where it can."""


def parts_of(models: Iterable[torch.nn.Module]) -> list[Any]:
    """Return models with their parameters and persistent buffers: each stays the object that it is."""
    return [one for model in models for one in (model, *(tensor for _, tensor in model_tensors(model)))]


class Objects:
    """Objects with ``state_dict`` and ``load_state_dict``, each in a file of its own.

    Args:
        model: written by rank 0 without its wrapper, as one model.
        optimizer, scheduler: None where there is none.
        elsewhere: returns models that are saved beside these objects, by name, and that their optimizers may train.
        others: returns optimizers and schedules that are saved beside them, without wrappers, by name: what they train
            outside of models, and which groups they are given, is written here. None: nothing is known of them.

    Attributes:
        doubts: what speaks against the numbers of an unbroken run behind a load, in words.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        elsewhere: Callable[[], dict[str, torch.nn.Module]] = dict,
        others: Callable[[], dict[str, Any] | None] = dict,
    ) -> None:
        self.model = model
        self._elsewhere, self._others = elsewhere, others
        self.doubts: list[str] = []
        self._things: dict[str, Any] = {}
        self._added = AddedGroups()
        for name, thing in (("optimizer", optimizer), ("scheduler", scheduler)):
            if thing is not None:
                self._take_in(name, thing)

    def add(self, name: str, thing: Any) -> None:
        """Take one more object in, as ``<name>.pt``; None is nothing. Raises SettingsError."""
        if thing is None:
            return
        if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
            raise SettingsError(
                f"add({name!r}): use letters, digits, '-' and '_', and no name of our own files"
            )
        if name in self._things:
            raise SettingsError(f"add({name!r}): there is something of this name already")
        self._take_in(name, thing)

    def _take_in(self, name: str, thing: Any) -> None:
        check_stateful(name, thing)
        self._things[name] = thing
        self._added.note(name, thing)

    def begin(self) -> None:
        """Note with how many groups of parameters ``others`` begin."""
        for name, thing in (self._others() or {}).items():
            self._added.note(name, thing)

    def model_identity(self) -> ModelIdentity:
        """Return the identity of the model, and of models that were added."""
        own = [identity_of(whole(self.model))] if self.model is not None else []
        return joined([*own, *(identity_of(thing).within(f"{name}/") for name, thing in self._models())])

    def models(self) -> dict[str, torch.nn.Module]:
        """Return the model, named ``""``, and the models that were added."""
        found = {"": whole(self.model)} if self.model is not None else {}
        return found | {f"{name}/": thing for name, thing in self._models()}

    def _models(self) -> Iterator[tuple[str, torch.nn.Module]]:
        for name, thing in self._things.items():
            if isinstance(thing, torch.nn.Module):
                yield name, whole(thing)

    def _loose(self) -> dict[str, torch.Tensor]:
        """Return what the optimizers train and no model holds."""
        models = [*self.models().values(), *self._elsewhere().values()]
        return loose_parameters.loose_parameters(self._all_optimizers(), models)

    @property
    def _needs_loose(self) -> bool:
        """Whether no checkpoint is without its file: earlier versions wrote none for what ``others`` train."""
        return bool(self._loose()) and not self._others()

    def _all_optimizers(self) -> list[Any]:
        others = (self._others() or {}).values()
        return [*self.optimizers, *(one for one in others if isinstance(one, torch.optim.Optimizer))]

    def _all_models(self) -> dict[str, torch.nn.Module]:
        """Return all models of which it is known by which optimizers they are trained."""
        return self.models() | (self._elsewhere() if self._others() is not None else {})

    def write(self, folder: Path, rank: int) -> None:
        """Write every object; on rank 0. Raises OSError."""
        if rank != 0:
            return
        if self.model is not None:
            write_model(folder, whole(self.model))
        for name, thing in self._things.items():
            thing = whole(thing) if isinstance(thing, torch.nn.Module) else thing
            write_state(folder / f"{name}.pt", thing.state_dict())
        self._added.write(folder, self._all_models())
        if left := left_gradients.left_gradients(self._all_models(), self._all_optimizers()):
            write_state(folder / left_gradients.FILE, left)
        loose_parameters.write_loose(folder, self._loose())

    def give_groups(self, folder: Path) -> None:
        """Give optimizers the groups that they got on their way, ahead of their load. Raises ResumeError."""
        self._added.give(folder, self._all_models())

    def read(self, folder: Path) -> None:
        """Load every object. Raises ResumeError."""
        self.doubts = []
        if self.model is not None:
            read_model(folder, whole(self.model))
        self.give_groups(folder)
        schedules = [one for one in self._things.values() if isinstance(one, LRScheduler)]
        with loading_schedules(self.optimizers, self.schedulers, folder, added=schedules):
            for name, thing in self._things.items():
                self._load(name, thing, folder)
        left_gradients.load_left_gradients(folder, self._all_models())
        self.doubts += loose_parameters.load_loose(folder, self._loose(), needed=self._needs_loose)

    def _load(self, name: str, thing: Any, folder: Path) -> None:
        state = read_state(folder / f"{name}.pt")
        try:
            if isinstance(thing, torch.nn.Module):
                load_plain(whole(thing), state)
            elif keeps_place(thing):
                self.doubts += [f"{name}: {words}" for words in load_place(thing, state)]
            else:
                load_in_place(thing, state)
        except Exception as error:  # the object is the script's own: it raises what it likes
            what = f"{type(error).__name__}: {error}"
            raise ResumeError(f"{name}.pt of {folder.name} can't be loaded: {what}") from error

    @property
    def within_update(self) -> bool:
        """No: nobody counts them; gradients that wait for an update are kept."""
        return False

    @property
    def batches_an_update(self) -> int:
        """Nothing says so before updates are seen."""
        return 0

    @property
    def unkept(self) -> str:
        """Why no start can go on from a checkpoint of now, in words; empty where one can."""
        return self._added.lost

    def tensors(self, world_size: int) -> StateTensors:
        """List the tensors of the model's, the optimizer's and the schedule's state, and those of models added."""
        optimizer, scheduler = self._things.get("optimizer"), self._things.get("scheduler")
        return list_tensors(self.models(), [optimizer], [scheduler], world_size=world_size)

    def asked(self, loader: Any) -> Asked:
        """Return what the training is asked for; ``loader``: of its data, or None."""
        models = [self.model, *(thing for _, thing in self._models())]
        return asked_of(models, self.optimizers, self.schedulers, loader)

    @property
    def schedulers(self) -> list[Any]:
        """The schedule of the learning rate, where there is one."""
        scheduler = self._things.get("scheduler")
        return [] if scheduler is None else [scheduler]

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of the training, those that were added included."""
        return [one for one in self._things.values() if isinstance(one, torch.optim.Optimizer)]

    @property
    def saved(self) -> list[Any]:
        """The objects that have files of their own in a checkpoint."""
        models = [self.model] if self.model is not None else []
        return [*models, *self._things.values(), *parts_of(self.models().values()), *self._loose().values()]

    @property
    def engine(self) -> str:
        """None: the objects are whole, and written here."""
        return ""

    def missing(self, paths: set[str], world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""
        lacking = [f"{name}.pt" for name in self._things if f"{name}.pt" not in paths]
        if self.model is not None and not {"model.safetensors", "model.pt"} & paths:
            lacking.insert(0, "the model's weights")
        if loose_parameters.FILE not in paths and self._needs_loose:
            lacking.append(loose_parameters.FILE)
        return lacking

    def refuse(self, paths: set[str], written: int, now: int) -> str:
        """Any number of ranks can go on: the objects are whole."""
        return ""
