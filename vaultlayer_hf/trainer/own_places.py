"""Where a script's own objects keep what training changes: in attributes, and in what their functions read.

Callbacks, a Trainer of the script's own, an object that is its metric or its loss, an optimizer of its own class, the
modules of the model; and what functions of these, and hooks of modules, read beside their arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy
import torch
from transformers import TrainerState
from transformers.trainer_callback import ExportableState

from vaultlayer_hf.state.data.samplers import parts
from vaultlayer_hf.state.functions import names_in, reached
from vaultlayer_hf.state.generator_states import GENERATORS
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.object_kinds import CONTAINERS, is_of_script, own_attributes
from vaultlayer_hf.state.places import Attributes, Place
from vaultlayer_hf.trainer.exchanged import HOOKS, hooks_of, is_method, methods_of
from vaultlayer_hf.trainer.loaded import Trained
from vaultlayer_hf.trainer.outside import unsaved_buffers

_TABLES = ("training", "max_seq_len_cached")
"""Numbers of modules that say nothing of what is trained, or are made anew for longer inputs."""
_FEW = 64
"""Numbers in a container of a library's module, at most."""
_NUMBERS = (bool, int, float, str)
_SET_ANEW = ("eval_on_start", "max_steps", "num_train_epochs", "output_dir", "resume_from_checkpoint")
"""Arguments that a start decides, or that are changed for a while at one."""
_CADENCES = ("save_steps", "logging_steps", "eval_steps")
"""What the Trainer's state takes from the arguments at each start."""
_OF_EACH_CONFIG = ("transformers_version", "use_cache", "name_or_path")
"""What the Trainer and ``save_pretrained`` set in a configuration."""
_OF_EACH_MODULE = frozenset(vars(torch.nn.Module()))
"""What torch keeps in a module."""
_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
"""Where torch keeps hooks."""
_CALLED = ("compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics")
"""What a Trainer calls that a script hands to it."""


class Held(NamedTuple):
    """What a place holds.

    Attributes:
        owner: whose place it is, as people call it.
        place: where it is put back.
        values: by the names of attributes or variables.
    """

    owner: str
    place: Place
    values: dict[str, Any]


class OwnPlaces:
    """The places of one training.

    Args:
        trainer: None where it isn't known.
        callbacks: the Trainer's.
        trained: what is trained.
        carried: what is carried besides, and isn't among these.
    """

    def __init__(
        self, trainer: Any, callbacks: Iterable[Any], trained: Trained, carried: Iterable[Any]
    ) -> None:
        self.trainer, self.callbacks, self._trained = trainer, list(callbacks), trained
        self.carried = list(carried)

    def all(self) -> Iterator[tuple[str, Place]]:
        """Yield the places by names for people."""
        called = [*self._called(), *self._hooks()]  # which goes through the whole model: once
        for name, thing in self._objects(called):
            exports = isinstance(thing, ExportableState)
            chosen = _of_trainer if thing is self.trainer else _not_exported if exports else _all_of
            yield name, Attributes(thing, chosen)
        yield from reached(self._with_functions(called), self._apart()).items()
        optimizer = inner(self._trained.optimizer)
        if optimizer is not None and is_of_script(type(optimizer)):
            yield type(optimizer).__name__, Attributes(optimizer, own_attributes)
        for name, module in peeled(self._trained.model).named_modules():
            yield f"model.{name}" if name else "model", Attributes(module, _of_module)
            if (allocator := vars(module).get("rankallocator")) is not None:
                yield f"model.{name}.rankallocator", Attributes(allocator, _of_allocator)
        if self.trainer is not None:  # what a callback changes in mid-run
            config = getattr(peeled(self._trained.model), "config", None)
            if hasattr(config, "__dict__"):
                yield "model.config", Attributes(config, _of_config)
            yield "args", Attributes(self.trainer.args, _of_arguments)
            yield "state", Attributes(self.trainer.state, _of_state)

    def held(self) -> list[Held]:
        """Return the places with what they hold now, in one pass: it goes through the whole model."""
        return [Held(owner, place, place.values()) for owner, place in self.all()]

    def orders(self, loader: Any, kept: Mapping[str, Collection[str]]) -> list[str]:
        """Return which of these attributes, by owner and name, a sampler of the script's own reads, by paths."""
        try:
            own = [one for one in parts(loader).values() if is_of_script(type(one))]
            return sorted({path for one in own for path in self.read_by(one, kept)})
        except Exception:  # of objects of the script's own: nothing is said of them then
            return []

    def read_by(self, part: Any, kept: Mapping[str, Collection[str]]) -> list[str]:
        """Return those of these attributes, by owner and name, that an object of the script's own reads, by paths."""
        values = [*vars(part).values()]
        values += [one for read in reached([part]).values() for one in read.values().values()]
        known, names = {id(value) for value in values if not isinstance(value, _NUMBERS)}, names_in(part)
        return [
            f"{owner}.{name}"
            for owner, place in self.all()
            for name, value in place.values().items()
            if name in kept.get(owner, ())
            and (id(value) in known or (name in names and id(getattr(place, "thing", None)) in known))
        ]

    def asking(self) -> list[Any]:
        """Return what may ask the Trainer to stop: callbacks, and a Trainer of the script's own."""
        return [one for one in (*self.callbacks, self.trainer) if one is not None]

    def _objects(self, called: list[Any]) -> Iterator[tuple[str, Any]]:
        known = {id(one) for one in self.carried}
        counts: dict[str, int] = {}
        # Of a method, the object.
        for one in (*self.callbacks, *(getattr(one, "__self__", one) for one in called)):
            own = hasattr(one, "__dict__") and not hasattr(one, "__get__") and is_of_script(type(one))
            if own and not isinstance(one, type) and id(one) not in known:
                known.add(id(one))
                name = type(one).__name__
                counts[name] = counts.get(name, 0) + 1
                yield name + f"[{counts[name]}]" * (counts[name] > 1), one
        if self.trainer is not None:
            yield type(self.trainer).__name__, self.trainer

    def _with_functions(self, called: list[Any]) -> list[Any]:
        things = [*self.callbacks, self.trainer, *called, *(getattr(one, "__self__", None) for one in called)]
        things += [inner(self._trained.optimizer), getattr(self._trained.scheduler, "scheduler", None)]
        things += [self._trained.scheduler, *getattr(self._trained.scheduler, "lr_lambdas", ())]
        for one in (
            self.trainer,
            inner(self._trained.optimizer),
            getattr(self._trained.scheduler, "scheduler", None),
        ):
            things += methods_of(one)
        modules = list(peeled(self._trained.model).modules())
        things += [method for module in modules for method in methods_of(module)]
        return [*things, *(one for one in modules if is_of_script(type(one)))]

    def _apart(self) -> list[Any]:
        """Return what is looked after elsewhere, or is no state of the script's."""
        trainer, model = self.trainer, peeled(self._trained.model)
        data = [getattr(trainer, name, None) for name in ("train_dataset", "eval_dataset", "data_collator")]
        return [one for one in (model, *data, *self.carried) if one is not None]

    def _hooks(self) -> list[Any]:
        """Return the hooks of the model's modules and parameters, and of the optimizer."""
        model = peeled(self._trained.model)
        every = [hook for module in model.modules() for hook in hooks_of(module, HOOKS)]
        every += [hook for parameter in model.parameters() for hook in hooks_of(parameter, _OF_TENSORS)]
        return [*every, *hooks_of(inner(self._trained.optimizer), _OF_OPTIMIZERS)]

    def _called(self) -> list[Any]:
        return [getattr(self.trainer, name, None) for name in _CALLED]


def inner(optimizer: Any) -> Any:
    """Return an optimizer without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _all_of(thing: Any) -> dict[str, Any]:
    return dict(vars(thing))


def _not_exported(callback: Any) -> dict[str, Any]:
    """Return what the Trainer's own state of a callback leaves out."""
    exported = callback.state()
    known = {*exported.get("args", ()), *exported.get("attributes", ())}
    return {name: value for name, value in vars(callback).items() if name not in known}


def _of_trainer(trainer: Any) -> dict[str, Any]:
    own = own_attributes(trainer)
    return {
        name: value
        for name, value in own.items()
        if not (name.startswith("_vaultlayer") or is_method(trainer, name, value))
    }


def _of_arguments(args: Any) -> dict[str, Any]:
    found = {name: value for name, value in _public(dict(vars(args))).items() if isinstance(value, _NUMBERS)}
    return {name: value for name, value in found.items() if name not in _SET_ANEW and "token" not in name}


def _of_config(config: Any) -> dict[str, Any]:
    """Return the numbers that a model may read as it computes."""
    found = {
        name: value for name, value in _public(dict(vars(config))).items() if isinstance(value, _NUMBERS)
    }
    return {name: value for name, value in found.items() if name not in _OF_EACH_CONFIG}


def _of_state(state: Any) -> dict[str, Any]:
    """Return what its file doesn't bring back: what the arguments set anew, and what a script has added."""
    saved = {one.name for one in fields(TrainerState)} - set(_CADENCES)
    return {name: value for name, value in _public(dict(vars(state))).items() if name not in saved}


def _of_module(module: Any) -> dict[str, Any]:
    """Return a module's own attributes, the numbers of a library's, and the buffers that no checkpoint holds."""
    if is_of_script(type(module)):
        found = own_attributes(module)
        found = {name: value for name, value in found.items() if name not in _OF_EACH_MODULE}
    else:
        every, added = _public(dict(vars(module))), own_attributes(module)
        found = {
            name: value
            for name, value in every.items()
            if isinstance(value, _NUMBERS) or _are_numbers(value) or (name in added and _is_state(value))
        }
    return {name: value for name, value in found.items() if name not in _TABLES} | unsaved_buffers(module)


def _is_state(value: Any) -> bool:
    """Tell whether what a script has hung on a library's module may be state."""
    kinds = (*CONTAINERS, *GENERATORS, torch.Tensor, numpy.ndarray)
    return isinstance(value, kinds) or is_of_script(type(value))


def _are_numbers(value: Any) -> bool:
    """Tell whether a value holds a few numbers, as the scales of a layer's adapters."""
    if not isinstance(value, (dict, list)) or not 0 < len(value) <= _FEW:
        return False
    return all(isinstance(one, _NUMBERS) for one in (value.values() if isinstance(value, dict) else value))


def _of_allocator(allocator: Any) -> dict[str, Any]:
    """Return what AdaLoRA goes by as it allots its ranks: how important each one was so far."""
    return {name: value for name, value in vars(allocator).items() if "ipt" in name or "unc" in name}


def _public(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith("_")}
