"""What an Accelerator has prepared, as the state of a loop: written and read by accelerate's own save_state.

So the layouts of DDP, FSDP and DeepSpeed, gradient scalers and objects registered for checkpointing come along as
accelerate writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.loops.added_groups import AddedGroups
from vaultlayer_hf.loops.asked import asked_of
from vaultlayer_hf.loops.loose_parameters import loose_parameters
from vaultlayer_hf.loops.model_names import can_rename, named_as_in
from vaultlayer_hf.loops.objects import Objects, parts_of
from vaultlayer_hf.state.asked import Asked
from vaultlayer_hf.state.capture.stepped import place, plain, tensors_in
from vaultlayer_hf.state.layouts import missing_parts
from vaultlayer_hf.state.model_identity import ModelIdentity, identity_of, joined
from vaultlayer_hf.state.object_files import groups_stay, peeled
from vaultlayer_hf.state.saved_digests import StateTensors, list_tensors
from vaultlayer_hf.state.schedules import loading_schedules, unwrapped_schedule
from vaultlayer_hf.state.tensor_digests import is_shard

_WHOLE = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU", "MULTI_XPU", "MULTI_MLU", "MULTI_HPU", "MULTI_MUSA")
"""Kinds of training in which each rank has the whole model."""
UPDATE_LOST = "the checkpoint was saved between two batches of one update, whose gradients {} doesn't save"
"""What speaks against the numbers behind a load then; of an engine, or of accelerate itself."""

_LOOSE = (
    "save_state() leaves out {} tensor(s) that an optimizer trains and no prepared model holds: "
    "register_for_checkpointing() what holds them"
)


class Prepared:
    """The models, optimizers, schedulers, data loaders and registered objects of an Accelerator.

    Args:
        accelerator: that has prepared, or will have before ``resume()``, everything.
        attached: whether the script calls save_state itself, so that nothing is written beside it.
    """

    def __init__(self, accelerator: Any, *, attached: bool = False) -> None:
        self.accelerator = accelerator
        self._added = Objects(
            None, None, None, self._models, lambda: None if self.engine or attached else self._trained_by()
        )
        self._grown = AddedGroups()  # of an engine, which saves groups in its own way

    @property
    def _kind(self) -> str:
        return str(getattr(self.accelerator.distributed_type, "name", self.accelerator.distributed_type))

    def add(self, name: str, thing: Any) -> None:
        """Take one more object in, as ``<name>.pt``. Raises SettingsError."""
        self._added.add(name, thing)

    def begin(self) -> None:
        """Note with how many groups of parameters the prepared optimizers begin."""
        self._added.begin()
        for name, thing in self._trained_by().items() if self.engine else ():
            self._grown.note(name, thing)

    def _models(self) -> dict[str, torch.nn.Module]:
        """Return the prepared models, and those that are registered, by names that no ``add()`` gives."""
        found = {f"prepared/{n}/": peeled(one) for n, one in enumerate(self.accelerator._models)}
        registered = enumerate(self.accelerator._custom_objects)
        return found | {
            f"registered/{n}/": peeled(one) for n, one in registered if isinstance(one, torch.nn.Module)
        }

    def _trained_by(self) -> dict[str, Any]:
        """Return the prepared optimizers and schedules likewise, without accelerate's wrappers."""
        accelerator = self.accelerator
        found = {f"prepared/{n}": plain(one) for n, one in enumerate(accelerator._optimizers)}
        schedules = enumerate(accelerator._schedulers)
        return found | {f"prepared schedule/{n}": unwrapped_schedule(one) for n, one in schedules}

    def model_identity(self) -> ModelIdentity:
        """Return the identity of all prepared models; empty where parameters are flattened into others (FSDP 1)."""
        models = [peeled(model) for model in self.accelerator._models]
        if any(type(model).__name__ == "FullyShardedDataParallel" for model in models):
            return ModelIdentity()
        prepared = (
            identity_of(model).within(f"{number}/" if number else "") for number, model in enumerate(models)
        )
        return joined([self._added.model_identity(), *prepared])

    def models(self) -> dict[str, torch.nn.Module]:
        """Return the prepared models, the first named ``""``, and those that were added."""
        models = [peeled(model) for model in self.accelerator._models]
        found = {f"{number}/" if number else "": model for number, model in enumerate(models)}
        return found | {f"added/{name}": model for name, model in self._added.models().items()}

    def write(self, folder: Path, rank: int) -> None:
        """Have accelerate write its files, on all ranks. Raises OSError."""
        if not self.accelerator._models and not self.accelerator._optimizers:
            raise SettingsError(
                "this Accelerator has prepared nothing: call accelerator.prepare(…) before resume()"
            )
        with _own_folder(self.accelerator):
            self.accelerator.save_state(str(folder))
        self._added.write(folder, rank)

    def read(self, folder: Path) -> None:
        """Have accelerate load its files, on all ranks. Raises ResumeError."""
        self._added.give_groups(folder)
        try:
            with self.loading(folder):
                self.accelerator.load_state(str(folder))
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ResumeError(f"accelerate can't load {folder.name}: {what}") from error
        self._added.read(folder)

    @contextmanager
    def loading(self, folder: Path) -> Iterator[None]:
        """Have accelerate's ``load_state`` of this folder load what it holds into what is prepared, on all ranks."""
        with ExitStack() as stack:
            stack.enter_context(loading_schedules(self.optimizers, self.schedulers, folder))
            stack.enter_context(groups_stay(self.optimizers))
            if self._kind in _WHOLE:
                stack.enter_context(named_as_in(self.accelerator, folder))
            yield

    @property
    def doubts(self) -> list[str]:
        """What speaks against the numbers of an unbroken run behind a load, in words."""
        return self._added.doubts

    @property
    def within_update(self) -> bool:
        """Whether accelerate has counted batches of an update that is still to come."""
        accelerator = self.accelerator
        return bool(getattr(accelerator, "step", 0) % accelerator.gradient_accumulation_steps)

    @property
    def batches_an_update(self) -> int:
        """How many batches an update has."""
        return int(self.accelerator.gradient_accumulation_steps)

    @property
    def left_out(self) -> str:
        """What the optimizers train and ``save_state`` doesn't save, in words; empty where there is no such thing."""
        found = (
            {}
            if self.engine
            else loose_parameters(map(plain, self.accelerator._optimizers), self._models().values())
        )
        states = (one.state_dict() for one in self.accelerator._custom_objects) if found else ()
        known = {place(one) for state in states for one in tensors_in(state)}
        lost = [one for one in found.values() if place(one) not in known]
        return _LOOSE.format(len(lost)) if lost else ""

    @property
    def unkept(self) -> str:
        """Why no start can go on from a checkpoint of now, in words; empty where one can."""
        if self._grown.came:
            return f"accelerate saves what {self._kind} trains by the groups that it begins with"
        return self._added.unkept

    def tensors(self, world_size: int) -> StateTensors:
        """List the tensors of the prepared models', optimizers' and schedules' state on this rank.

        Of DeepSpeed's optimizers nothing is said: it partitions their state in its own way, and loads it strictly.
        """
        models = [peeled(model) for model in self.accelerator._models]
        own = self._kind == "DEEPSPEED"
        return list_tensors(
            {f"{number}/" if number else "": model for number, model in enumerate(models)},
            [] if own else [getattr(one, "optimizer", one) for one in self.accelerator._optimizers],
            [] if own else [getattr(one, "scheduler", one) for one in self.accelerator._schedulers],
            world_size=world_size,
            sharded=any(is_shard(parameter) for model in models for parameter in model.parameters()),
        )

    def asked(self, loader: Any) -> Asked:
        """Return what the training is asked for; ``loader``: of its data, or None: the first that was prepared."""
        accelerator = self.accelerator
        prepared = (
            [loader, *accelerator._dataloaders] if loader is not None else [*accelerator._dataloaders, None]
        )
        return asked_of(
            accelerator._models,
            self.optimizers,
            self.schedulers,
            prepared[0],
            mixed_precision=str(accelerator.mixed_precision),
            gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
        )

    @property
    def schedulers(self) -> list[Any]:
        """The schedules of its learning rates."""
        return list(self.accelerator._schedulers)

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of the training, those that were added included."""
        return [*self.accelerator._optimizers, *self._added.optimizers]

    @property
    def saved(self) -> list[Any]:
        """The objects that have files of their own in a checkpoint."""
        one = self.accelerator
        whole = [*one._models, *parts_of(map(peeled, one._models)), *one._custom_objects, *self._added.saved]
        inner = [getattr(each, "optimizer", each) for each in self.optimizers]
        return [one, *whole, *self.optimizers, *inner, *self.schedulers]

    @property
    def engine(self) -> str:
        """What of accelerate's plugins keeps the model in parts, or saves in a way of its own; else nothing."""
        return "" if self._kind in _WHOLE else self._kind

    def missing(self, paths: set[str], world_size: int) -> list[str]:
        """Return what a checkpoint with these files lacks that ``world_size`` ranks have written."""
        accelerator = self.accelerator
        needed = [f"random_states_{rank}.pkl" for rank in range(world_size)]
        needed += [f"custom_checkpoint_{number}.pkl" for number in range(len(accelerator._custom_objects))]
        lacking = []
        if self._kind in _WHOLE:
            # A hook of the script's own that runs ahead of each save may write the models itself, under names of its
            # own, and take them from what accelerate writes: accelerate's documented way, which diffusers goes.
            own_way = bool(getattr(accelerator, "_save_model_state_pre_hook", None))
            for number in range(0 if own_way else len(accelerator._models)):
                end = f"_{number}" if number else ""
                if not {f"model{end}.safetensors", f"pytorch_model{end}.bin"} & paths:
                    lacking.append(f"model{end}.safetensors")
            needed += _numbered("optimizer", len(accelerator._optimizers))
        else:
            if not any(path.startswith("pytorch_model") for path in paths):
                lacking.append("the model's weights")
            lacking += missing_parts(paths, world_size)
        if self._kind == "FSDP":
            for number in range(len(accelerator._optimizers)):
                end = f"_{number}" if number else ""
                spread = (f"optimizer_{number}/", f"optimizer_{number}_rank")
                if f"optimizer{end}.bin" not in paths and not any(path.startswith(spread) for path in paths):
                    lacking.append(f"optimizer{end}.bin")
        own = [one for one in accelerator._schedulers if type(one).__name__ != "DeepSpeedSchedulerWrapper"]
        needed += _numbered("scheduler", len(own))
        lacking += [name for name in needed if name not in paths]
        return lacking + self._added.missing(paths, world_size)

    def refuse(self, paths: set[str], written: int, now: int) -> str:
        """Return why a checkpoint of ``written`` ranks can't be loaded by ``now``; empty where it can."""
        if written == now or self._kind == "FSDP":
            return ""
        if self._kind == "DEEPSPEED":
            return f"DeepSpeed wrote it on {written} ranks and this run has {now}: start on {written} ranks"
        if (written == 1) != (now == 1) and not can_rename(self.accelerator):
            return (
                f"accelerate wrote the model of {written} rank(s) under other names than {now} rank(s) load: start on "
                f"{written}"
            )
        return ""


@contextmanager
def _own_folder(accelerator: Any) -> Iterator[None]:
    """Have save_state write to the folder that it is given, whatever the script has asked for its own saves."""
    options = accelerator.project_configuration
    before = options.automatic_checkpoint_naming, options.iteration
    options.automatic_checkpoint_naming = False
    try:
        yield
    finally:
        options.automatic_checkpoint_naming, options.iteration = before


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{number}.bin" if number else f"{name}.bin" for number in range(count)]
