"""Where a script's own objects keep what training changes: in attributes, and in what their functions read.

Callbacks, a Trainer of the script's own, an object that is its metric or its loss, an optimizer of its own class, the
modules of the model; and what functions of these, and hooks of modules, read beside their arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transformers.trainer_callback import ExportableState

from vaultlayer_hf.state.data.samplers import parts
from vaultlayer_hf.state.functions import names_in, reached
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.object_kinds import is_of_script, own_attributes
from vaultlayer_hf.state.places import Attributes, Place
from vaultlayer_hf.trainer.exchanged import HOOKS, hooks_of, methods_of
from vaultlayer_hf.trainer.own_attributes import (
    of_allocator,
    of_arguments,
    of_config,
    of_control,
    of_exporting_callback,
    of_module,
    of_object,
    of_state,
    of_trainer,
)
from vaultlayer_hf.trainer.trained import Trained

_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
"""Where torch keeps hooks."""
_CALLED = ("compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics")
"""What a Trainer calls that a script hands to it."""
_NUMBERS = (bool, int, float, str)


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
            of_other = of_exporting_callback if exports else of_object
            chosen = of_trainer if thing is self.trainer else of_other
            yield name, Attributes(thing, chosen)
        yield from reached(self._with_functions(called), self._apart()).items()
        optimizer = inner(self._trained.optimizer)
        if optimizer is not None and is_of_script(type(optimizer)):
            yield type(optimizer).__name__, Attributes(optimizer, own_attributes)
        for name, module in peeled(self._trained.model).named_modules():
            yield f"model.{name}" if name else "model", Attributes(module, of_module)
            if (allocator := vars(module).get("rankallocator")) is not None:
                yield f"model.{name}.rankallocator", Attributes(allocator, of_allocator)
        if self.trainer is not None:  # what a callback changes in mid-run
            config = getattr(peeled(self._trained.model), "config", None)
            if hasattr(config, "__dict__"):
                yield "model.config", Attributes(config, of_config)
            yield "args", Attributes(self.trainer.args, of_arguments)
            yield "state", Attributes(self.trainer.state, of_state)
            yield "control", Attributes(self.trainer.control, of_control)

    def held(self) -> list[Held]:
        """Return the places with what they hold now, in one pass: it goes through the whole model."""
        return [Held(owner, place, place.values()) for owner, place in self.all()]

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
        """Return what the script's own functions are followed from."""
        optimizer, scheduler = inner(self._trained.optimizer), self._trained.scheduler
        bare_scheduler = getattr(scheduler, "scheduler", None)
        modules = list(peeled(self._trained.model).modules())
        things = [*self.callbacks, self.trainer, *called, *(getattr(one, "__self__", None) for one in called)]
        things += [optimizer, bare_scheduler, scheduler, *getattr(scheduler, "lr_lambdas", ())]
        with_methods = [self.trainer, optimizer, bare_scheduler, *modules]
        things += [method for one in with_methods for method in methods_of(one)]
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


def read_by_samplers(loader: Any, held: Sequence[Held], kept: Mapping[str, Collection[str]]) -> list[str]:
    """Return the paths of what a sampler of the script's own reads.

    Args:
        loader: whose samplers.
        held: what the places hold.
        kept: the attributes that count, by owner and name.
    """
    try:
        own = [one for one in parts(loader).values() if is_of_script(type(one))]
        return sorted({path for one in own for path in _read_by(one, held, kept)})
    except Exception:  # of objects of the script's own: nothing is said of them then
        return []


def _read_by(part: Any, held: Sequence[Held], kept: Mapping[str, Collection[str]]) -> list[str]:
    values = [*vars(part).values()]
    values += [one for read in reached([part]).values() for one in read.values().values()]
    known, names = {id(value) for value in values if not isinstance(value, _NUMBERS)}, names_in(part)
    return [
        f"{owner}.{name}"
        for owner, place, attributes in held
        for name, value in attributes.items()
        if name in kept.get(owner, ())
        and (id(value) in known or (name in names and id(getattr(place, "thing", None)) in known))
    ]
