"""State in attributes of a script's own objects: random generators come back, flags too, and what else moves is said.

| of | random generators | numbers, tensors, containers that training changes |
|---|---|---|
| a callback, a Trainer of the script's own | carried by each rank | said |
| what functions of these, hooks of modules and a loss read beside their arguments | carried by each rank | said |
| the optimizer's own class, modules of the model, the base model under an adapter | | said |
| the data set, the collator | with the place in the data | numbers with the place in the data; others are said |

Carried as well is which parameters are trained, where that changes as it is trained (``requires_grad``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transformers.trainer_callback import ExportableState

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.state.attributes import Prints, is_of_script, look, moved, names_read, own_attributes
from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.inner import own_generators, put_generators
from vaultlayer_hf.state.data.sources import unwrapped
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.tensor_digests import plain_name
from vaultlayer_hf.trainer.loaded import Trained, is_adapter

_TABLES = ("training", "max_seq_len_cached")
"""Numbers of modules that say nothing of what is trained, or are made anew for longer inputs."""
_NUMBERS = (bool, int, float, str)
_SHOWN = 3
"""Names that a message holds, at most."""


class OwnState:
    """What a script's own objects hold beside the checkpoint, from the begin of a training on.

        own = OwnState(trainer, callbacks, trained, loader, added)
        lost = own.load_state_dict(kept)  # of the checkpoint that it goes on from
        kept = own.state_dict()  # at each save; own.moved has what it lacks

    Args:
        trainer: None where it isn't known.
        callbacks: the Trainer's.
        trained: what is trained.
        loader: of the training data.
        added: what is carried besides.

    Attributes:
        moved: which attributes held something else at the newest save than at the begin, by their paths.
    """

    def __init__(
        self, trainer: Any, callbacks: Iterable[Any], trained: Trained, loader: Any, added: Iterable[Any]
    ) -> None:
        self._trainer, self._callbacks, self._trained = trainer, list(callbacks), trained
        self._loader, self._carried = loader, list(added)
        self.moved: list[str] = []
        self._flags = self._now()
        self._kept: dict[str, bool] = {}  # of the checkpoint that the training goes on from
        self._then = self._look()

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs: only tensors, numbers, text, tuples, lists and dictionaries."""
        self.moved = moved(self._then, self._look())
        flags = {name: on for name, on in self._now().items() if self._flags.get(name) != on}
        states = {name: own_generators(_Holder(one)) for name, one in (*self._objects(), *self._functions())}
        return {
            "flags": flags,
            "generators": {name: state for name, state in states.items() if state},
            "moved": self.moved,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Put back what was kept; return the paths of what begins as the script makes it."""
        objects = dict((*self._objects(), *self._functions()))
        lost = list(state.get("moved", ()))
        for name, states in state.get("generators", {}).items():
            try:
                put_generators(_Holder(objects[name]), states)
            except Exception:  # there is no such object now, or a generator of another kind
                lost.append(f"{name}'s random generators")
        self._kept = self._now() | state.get("flags", {})
        self.put_flags()
        return lost

    def put_flags(self) -> None:
        """Have those parameters trained, or not, that were when the checkpoint was saved."""
        for name, parameter in self._parameters():
            if name in self._kept:
                parameter.requires_grad_(self._kept[name])

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        if not self._trained.sharded:
            for name, parameter in peeled(self._trained.model).named_parameters():
                yield plain_name(name), parameter

    def _now(self) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in self._parameters()}

    def _look(self) -> Prints:
        try:
            found = look(dict(self._attributes()), self._known())
            return found | look(dict(self._base()), ())
        except Exception:  # of objects of the script's own: nothing is said of them then
            return {}

    def _known(self) -> set[int]:
        model, optimizer = peeled(self._trained.model), _inner(self._trained.optimizer)
        things = [model, optimizer, self._trained.scheduler, self._trainer, self._dataset(), *self._carried]
        things += [*self._callbacks, *model.modules(), *model.parameters()]
        return {id(one) for one in things if one is not None}

    def _attributes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._objects()
        yield from self._functions()
        optimizer = _inner(self._trained.optimizer)
        if optimizer is not None and is_of_script(type(optimizer)):
            yield type(optimizer).__name__, _public(own_attributes(optimizer))
        for name, module in peeled(self._trained.model).named_modules():
            own = is_of_script(type(module))
            found = {
                attribute: value
                for attribute, value in _public(vars(module)).items()
                if attribute not in _TABLES and (own or isinstance(value, _NUMBERS))
            }
            yield f"model.{name}" if name else "model", found
        for one in (self._dataset(), getattr(self._trainer, "data_collator", None)):
            if hasattr(one, "__dict__") and is_of_script(type(one)):
                kept = {
                    name: value for name, value in vars(one).items() if not isinstance(value, (int, float))
                }
                yield type(one).__name__, kept

    def _functions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what functions of the script's own read beside their arguments, by the functions' names."""
        things = [*self._callbacks, self._trainer, getattr(self._trainer, "compute_loss_func", None)]
        for module in peeled(self._trained.model).modules():
            things += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        for thing in things:
            yield from names_read(thing).items()

    def _base(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what lies under an adapter, of which its files hold nothing."""
        model = peeled(self._trained.model)
        if is_adapter(model) and not self._trained.sharded:
            yield "model", {n: one for n, one in model.named_parameters() if not one.requires_grad}

    def _objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the attributes of callbacks and of a Trainer that are the script's own, by names for people."""
        known = {id(one) for one in self._carried}
        counts: dict[str, int] = {}
        for one in self._callbacks:
            if is_of_script(type(one)) and not isinstance(one, ExportableState) and id(one) not in known:
                name = type(one).__name__
                counts[name] = counts.get(name, 0) + 1
                yield name + f"[{counts[name]}]" * (counts[name] > 1), dict(vars(one))
        if self._trainer is not None:
            own = own_attributes(self._trainer)
            yield (
                type(self._trainer).__name__,
                {n: v for n, v in own.items() if not n.startswith("_vaultlayer")},
            )

    def _dataset(self) -> Any:
        return unwrapped(getattr(base_of(self._loader), "dataset", None))


class _Holder:
    """Has these attributes, of which the generators are the very objects."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        vars(self).update(attributes)


def warn_of_moved(events: Events, rank: int, names: Sequence[str]) -> None:
    """Say, once, that attributes which training changes are in no checkpoint."""
    if names and not rank:
        events.warn_once(
            "attributes",
            EventKind.INEXACT,
            f"{_some(names)}: training changes these attributes of the script's own objects, and no checkpoint holds "
            "them. Behind a resume they begin as the script makes them, and where the training hangs on them the "
            "numbers differ from an unbroken run's: derive them from state.global_step, or carry an object with "
            "state_dict and load_state_dict: trainer.vault.add('name', it)",
        )


def warn_of_lost(events: Events, rank: int, folder: str, names: Sequence[str]) -> None:
    """Say, at a start, which attributes had been changed when its checkpoint was saved, and begin anew."""
    if names and not rank:
        events.warn(
            EventKind.INEXACT,
            f"{folder} doesn't hold {_some(names)}, which had changed by then and begin as the script makes them: "
            "where the training hangs on them, the numbers differ from an unbroken run's",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _public(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith("_")}


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)
