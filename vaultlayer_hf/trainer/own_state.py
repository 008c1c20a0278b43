"""State in attributes of a script's own objects: what training changes of it comes back, or is said.

| of | random generators | numbers, text, tensors, containers that training changes |
|---|---|---|
| a callback, a Trainer of the script's own, an object that is its metric or loss, the optimizer's own class, modules of
the model | carried by each rank | as well |
| what functions of these, of modules, of hooks, and all that they call, read beside their arguments: globals, closures,
attributes of classes, functions and modules | carried by each rank | as well |
| the Trainer's arguments and state | | carried by each rank |
| the base model under an adapter | | said |
| the data set, the collator | with the place in the data | numbers with the place in the data; others are said |

What one object holds comes back whole or not at all: a flag that says that a file is open would mislead without the
file. What is too large, or holds what can't be kept, is said (state/take_values.py), and so is a library's object in
the place of another of which nothing is known (state/object_kinds.py): what moves within such a one isn't seen. Which
parameters are trained, and which adapters are active, is carried as well, where that changes as it is trained.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.sources import unwrapped
from vaultlayer_hf.state.fingerprints import Fingerprints, fingerprint, moved, take_fingerprints
from vaultlayer_hf.state.generator_states import GeneratorState, resume_generator, states_of
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.object_kinds import (
    is_iterator,
    is_meter,
    may_hide_state,
    name_of_definition,
    own_attributes,
)
from vaultlayer_hf.state.places import FunctionVariables, Place
from vaultlayer_hf.state.put_values import fits, put_value
from vaultlayer_hf.state.stops import StopNotes, written_by_handlers
from vaultlayer_hf.state.take_values import Kept, Room, UnkeptError, has_come, take_attribute
from vaultlayer_hf.trainer.data_holdings import held_by_data
from vaultlayer_hf.trainer.exchanged import parts_of_training
from vaultlayer_hf.trainer.loaded import Trained, is_adapter, is_of_adapters
from vaultlayer_hf.trainer.own_places import Held, OwnPlaces, inner, read_by_samplers
from vaultlayer_hf.trainer.trained_parts import TrainedParts

_ALL = "the script's own objects, which can't be looked at"
_NONE = fingerprint(None, (), 0)


@dataclass
class _Taken:
    """What a save takes of the places.

    Attributes:
        generators: states of random generators, by owner and name.
        values: what is kept of the other attributes that have moved, by owner and name.
        unkept: the paths of those that have moved and aren't kept.
        moved: the names of those that have moved and are kept, the generators among them, by owner.
    """

    generators: dict[str, dict[str, GeneratorState]] = field(default_factory=dict)
    values: dict[str, dict[str, Kept]] = field(default_factory=dict)
    unkept: list[str] = field(default_factory=list)
    moved: dict[str, list[str]] = field(default_factory=dict)


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
        parts: which of the model is trained.
        moved: which attributes held something else at the newest save than at the begin and aren't carried, by paths.
        modules: the modules outside the model that are carried.
    """

    def __init__(
        self, trainer: Any, callbacks: Iterable[Any], trained: Trained, loader: Any, added: Iterable[Any]
    ) -> None:
        self._places = OwnPlaces(trainer, callbacks, trained, added)
        self._trainer, self._trained, self._loader = trainer, trained, loader
        self.parts = TrainedParts(trained)
        self.moved: list[str] = []
        self.modules: list[torch.nn.Module] = []
        # Of the checkpoint that the training goes on from.
        self._values: Mapping[str, Mapping[str, Kept]] = {}
        self._generators: Mapping[str, Mapping[str, GeneratorState]] = {}
        self._stops = StopNotes()
        held: list[Held] = []
        with contextlib.suppress(Exception):  # of objects of the script's own
            held = self._places.held()
        self._then, _ = self._look(held)
        self._there = {f"{one.owner}.{name}" for one in held for name in one.values}
        self._settle(held)
        self._hiding = {path: weakref.ref(value) for path, value in self._find_hiding(held)}

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs: only tensors, numbers, text, tuples, lists and dictionaries."""
        held = self._places.held()
        taken = self._take(held)
        self.moved = taken.unkept
        return {
            "generators": taken.generators,
            "values": taken.values,
            "orders": read_by_samplers(self._loader, held, taken.moved),
            "moved": taken.unkept,
            **self.parts.state_dict(),
        }

    def _take(self, held: Sequence[Held]) -> _Taken:
        """Return what is kept at a save of what the places hold, and what isn't."""
        now, known = self._look(held)
        # In order; what is kept, or turns out to be no state, leaves it.
        unkept = dict.fromkeys(moved(self._then, now))
        for path in self._find_stop_notes(held):
            unkept.pop(path, None)
        clocks = {
            name for _, place, _ in held if isinstance(place, FunctionVariables) for name in place.timed()
        }
        taken, room, seen, self.modules = _Taken(), Room(clocks=clocks), set[int](), []
        for owner, _, every in held:
            generators = states_of(every)
            values = {name: value for name, value in every.items() if name not in generators}
            names = [name for name in values if self._is_to_keep(f"{owner}.{name}", values[name], unkept)]
            left, kept = room.left, dict[str, Kept | None]()
            try:
                kept = self._take_together(owner, values, names, now, known, room, seen)
            except Exception:  # it holds what can't be kept, too much, or objects that raise what they like
                room.left = left
            if generators:
                taken.generators.setdefault(owner, {}).update(generators)
            if found := {name: one for name, one in kept.items() if one is not None}:
                taken.values.setdefault(owner, {}).update(found)
            moved_here = [name for name in generators if f"{owner}.{name}" in unkept]
            taken.moved.setdefault(owner, []).extend([*moved_here, *found])
            for name in (*moved_here, *kept):
                del unkept[f"{owner}.{name}"]
            seen |= {id(values[name]) for name in kept}
            self.modules += [values[name] for name in kept if isinstance(values[name], torch.nn.Module)]
        for path, value in self._find_hiding(held):
            if (first := self._hiding.get(path)) is not None and first() is not value:
                unkept[path] = None
        taken.unkept = list(unkept)
        return taken

    def _find_stop_notes(self, held: Iterable[Held]) -> list[str]:
        """Return the paths of what says that this process is to end, in the save with which a script stops it."""
        if not self._is_stopped():
            self._settle(held)
            return []
        return [f"{owner}.{name}" for owner, _, values in held for name in self._stops.among(owner, values)]

    def _find_hiding(self, held: Iterable[Held]) -> Iterator[tuple[str, Any]]:
        """Yield objects of libraries that may hide state, by paths: a new one in the place of another is a change."""
        for owner, _, values in held:
            for name, value in values.items():
                if may_hide_state(value):
                    yield f"{owner}.{name}", value

    def _is_stopped(self) -> bool:
        """Tell whether this is the save with which a script stops the training ahead of its end."""
        if self._trainer is None or not self._trainer.control.should_training_stop:
            return False
        state = self._trainer.state
        return bool(state.global_step < state.max_steps)

    def _ask(self) -> None:
        with contextlib.suppress(Exception):  # of objects of the script's own
            self._stops.ask(self._places.asking())

    def _settle(self, held: Iterable[Held]) -> None:
        """Note what holds now: none of it says that the training is to stop, for it goes on."""
        self._ask()
        for owner, _, values in held:
            self._stops.settle(owner, values)

    def _is_to_keep(self, path: str, value: Any, moved: Collection[str]) -> bool:
        """Tell whether an attribute that has moved is to be kept: an iterator that was there at the begin is said."""
        return path in moved and not (is_iterator(value) and path in self._then)

    def _take_together(
        self,
        owner: str,
        values: Mapping[str, Any],
        names: Sequence[str],
        now: Fingerprints,
        known: Collection[int],
        room: Room,
        seen: Collection[int],
    ) -> dict[str, Kept | None]:
        """Return what is kept of an object's attributes of these names: of all, or UnkeptError.

        They go together: a flag that says of a file that it is open is of no use without the file. None: it is kept
        in another place already. A library's object that was there from the begin may be left out.
        """
        for name, value in values.items() if names else ():
            path = f"{owner}.{name}"
            empty = path in self._then or path not in self._there
            came = path not in now or (self._then.get(path, _NONE) == _NONE and is_meter(value))
            if came and empty and has_come(value, known):
                raise UnkeptError
        kept: dict[str, Kept | None] = {}
        for name in names:
            value = values[name]
            if id(value) in seen and not isinstance(value, (bool, int, float, str)):
                kept[name] = None
                continue
            first, left = self._then.get(f"{owner}.{name}"), room.left
            try:
                kept[name] = take_attribute(value, room, known, name=name, first=first)
            except UnkeptError:
                defined = name_of_definition(value) is not None or isinstance(value, functools.partial)
                if not (defined or is_meter(value)):
                    raise
                room.left = left
                # Where there was none at the begin, each start makes it, as it does its methods.
                if defined and first in (None, _NONE):
                    kept[name] = None
        return kept

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Put back what was kept; return the paths of what begins as the script makes it."""
        places: dict[str, Place] = {}
        with contextlib.suppress(Exception):  # of objects of the script's own: all that was kept is lost then
            places = dict(self._places.all())
        self._values, self._generators = state.get("values", {}), state.get("generators", {})
        lost = [*state.get("moved", ()), *self._put(places)]
        with contextlib.suppress(Exception):  # the same
            self._settle([Held(owner, place, place.values()) for owner, place in places.items()])
        self.parts.load_state_dict(state)
        return lost

    def put_again(self) -> None:
        """Put back once more what was kept, where a callback has changed it ahead of the first step."""
        self._put(dict(self._places.all()))

    def _put(self, places: Mapping[str, Place]) -> list[str]:
        """Put back what was kept; return the paths of what has no place now, or doesn't go into what is there."""
        lost: list[str] = []
        for owner, states in self._generators.items():
            for name, state in states.items():
                try:
                    place = places[owner]
                    place.put(name, resume_generator(place.values().get(name), state))
                except Exception:  # there is no such object now, or a generator of another device
                    lost.append(f"{owner}.{name}")
        for owner, attributes in self._values.items():
            try:
                place = places[owner]
                there = place.values()
                if not all(fits(kept, there.get(name)) for name, kept in attributes.items()):
                    raise UnkeptError
                for name, kept in attributes.items():
                    place.put(name, put_value(kept, there.get(name)))
            except Exception:  # there is no such object now, or another one
                lost += [f"{owner}.{name}" for name in attributes]
        return lost

    def _look(self, held: Sequence[Held]) -> tuple[Fingerprints, set[int]]:
        """Return what is seen now, and ``_known``, which goes through the whole model: once for all objects."""
        try:
            ids, names = written_by_handlers()
            known = self._known() | ids
            found = take_fingerprints({owner: values for owner, _, values in held}, known)
            found |= take_fingerprints(dict(self._base()), ())
            found |= take_fingerprints(
                held_by_data(self._dataset(), self._trainer, held), known, meters=False
            )
            found |= dict(parts_of_training(self._trainer, peeled(self._trained.model)))
            return {path: one for path, one in found.items() if path.rpartition(".")[2] not in names}, known
        except Exception:  # of objects of the script's own, which may have moved
            return {_ALL: object()}, set()

    def _known(self) -> set[int]:
        """Return the ids of what is carried elsewhere, or made by each start: the Trainer's own parts among it."""
        model, optimizer = peeled(self._trained.model), inner(self._trained.optimizer)
        places = self._places
        things = [model, optimizer, self._trained.scheduler, self._trainer, self._dataset(), *places.carried]
        things += [*places.callbacks, *model.modules(), *model.parameters()]
        if self._trainer is not None:
            own = own_attributes(self._trainer)
            things += [one for name, one in vars(self._trainer).items() if name not in own]
            things += vars(self._trainer.callback_handler).values()
        return {id(one) for one in things if not isinstance(one, (bool, int, float, str, type(None)))}

    def _base(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what lies under an adapter, of which its files hold nothing."""
        model = peeled(self._trained.model)
        if is_adapter(model) and not self._trained.sharded:
            named = model.named_parameters()
            under = {n: one for n, one in named if not (one.requires_grad or is_of_adapters(n, model))}
            yield "model", under

    def _dataset(self) -> Any:
        return unwrapped(getattr(base_of(self._loader), "dataset", None))
