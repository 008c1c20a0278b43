"""State of a script's own objects that none of the Trainer's files holds: what training changes of it comes back.

Where it is:

- in attributes of callbacks, of a Trainer of the script's own, of an object that is its metric or loss, of an optimizer
  of its own class, of the model's modules; in the Trainer's arguments and state
- in globals, variables of closures, and attributes of classes, functions and modules, which functions of these, hooks,
  and all that they call, read beside their arguments
- in the data of its evaluations, as far as these are generators and numbers

Random generators come back in any case, the rest where training changes it; each rank carries its own. Of two kinds it
is only said that training changes it: the base model under an adapter, and what a data set or a collator holds beside
generators and numbers, which come back with the place in the data.

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

from vaultlayer_hf.state.fingerprints import Fingerprints, fingerprint, moved
from vaultlayer_hf.state.generator_states import GeneratorState, resume_generator, states_of
from vaultlayer_hf.state.object_kinds import (
    is_drawing_cache,
    is_iterator,
    is_meter,
    may_hide_state,
    name_of_definition,
)
from vaultlayer_hf.state.places import FunctionVariables, Place
from vaultlayer_hf.state.put_values import fits, put_value
from vaultlayer_hf.state.stops import StopNotes
from vaultlayer_hf.state.take_values import Kept, Room, UnkeptError, has_come, take_attribute
from vaultlayer_hf.trainer.data_holdings import kept_by_fetching
from vaultlayer_hf.trainer.evaluation_data import EvaluationData
from vaultlayer_hf.trainer.own_fingerprints import OwnFingerprints
from vaultlayer_hf.trainer.own_fixed import digests_of_data, digests_of_fixed, made_otherwise, unchanged
from vaultlayer_hf.trainer.own_places import Held, OwnPlaces, read_by_samplers
from vaultlayer_hf.trainer.trained import Trained
from vaultlayer_hf.trainer.trained_parts import TrainedParts

_NONE = fingerprint(None, (), 0)


@dataclass
class _Save:
    """What one save keeps, while it is gathered.

    Attributes:
        now: the fingerprints of all that may change.
        known: ids of what is carried elsewhere.
        unkept: the paths of what has moved, in order, and isn't kept so far.
        room: how much may be kept.
        taken: ids of what is kept so far, under any path.
        generators: states of random generators, by owner and name.
        values: what is kept of the other attributes that have moved, by owner and name.
        carried: the names of what has moved and is kept, the generators among them, by owner.
        modules: those among the values.
    """

    now: Fingerprints
    known: Collection[int]
    unkept: dict[str, None]
    room: Room
    taken: set[int] = field(default_factory=set)
    generators: dict[str, dict[str, GeneratorState]] = field(default_factory=dict)
    values: dict[str, dict[str, Kept]] = field(default_factory=dict)
    carried: dict[str, list[str]] = field(default_factory=dict)
    modules: list[torch.nn.Module] = field(default_factory=list)

    def carry(self, owner: str, names: Collection[str], elsewhere: Iterable[str] = ()) -> None:
        """Note that attributes which have moved come back; ``elsewhere``: others that are kept by another path."""
        self.carried.setdefault(owner, []).extend(names)
        for name in (*names, *elsewhere):
            del self.unkept[f"{owner}.{name}"]


class OwnState:
    """What a script's own objects hold beside the checkpoint, from the begin of a training on.

        own = OwnState(trainer, callbacks, trained, loader, added)
        lost = own.load_state_dict(kept)  # of the checkpoint that it goes on from; own.unfit found no place
        kept = own.state_dict()  # at each save; own.unkept has what it lacks

    Args:
        trainer: None where it isn't known.
        callbacks: the Trainer's.
        trained: what is trained.
        loader: of the training data.
        added: what is carried besides.

    Attributes:
        parts: which of the model is trained.
        unkept: the paths of what held something else at the newest save than at the begin, and isn't in it.
        modules: the modules outside the model that are in it.
        unfit: the paths of what was kept, and found no place of its kind at this start.
        stopped_outside: a signal or a notice stops the training, and the script doesn't: what it holds is state then.
    """

    def __init__(
        self, trainer: Any, callbacks: Iterable[Any], trained: Trained, loader: Any, added: Iterable[Any]
    ) -> None:
        self._places = OwnPlaces(trainer, callbacks, trained, added)
        self._trainer, self._loader = trainer, loader
        self._fingerprints = OwnFingerprints(self._places, trained, loader)
        self.parts = TrainedParts(trained)
        self.unkept: list[str] = []
        self.modules: list[torch.nn.Module] = []
        self.unfit: list[str] = []
        # Of the checkpoint that the training goes on from.
        self._values: Mapping[str, Mapping[str, Kept]] = {}
        self._generators: Mapping[str, Mapping[str, GeneratorState]] = {}
        self._stops, self.stopped_outside = StopNotes(), False
        self._evaluation = EvaluationData(trainer, self._fingerprints.dataset)
        held: list[Held] = []
        with contextlib.suppress(Exception):  # of objects of the script's own
            held = self._places.held()
        self._then, known = self._fingerprints.take(held)
        self._fixed = digests_of_fixed(self._places, held, known)
        # Once: whether training changes them is seen by their fingerprints.
        self._fixed_data = digests_of_data(self._fingerprints.dataset, trainer, held)
        self._there = {f"{one.owner}.{name}" for one in held for name in one.values}
        self._settle(held)
        self._hiding = {path: weakref.ref(value) for path, value in self._find_hiding(held)}

    def state_dict(self, lacking: Iterable[str] = (), *, fetched_again: bool = False) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs: only tensors, numbers, text, tuples, lists and dictionaries.

        Args:
            lacking: what else the checkpoint lacks, in words.
            fetched_again: a resume fetches all batches that were trained on once more.
        """
        held = self._places.held()
        save = self._take(held)
        if fetched_again and save.unkept:
            for path in kept_by_fetching(self._fingerprints.dataset, self._trainer, held):
                save.unkept.pop(path, None)
        self.unkept, self.modules = [*save.unkept, *lacking], save.modules
        moved_since = {f"{owner}.{name}" for owner, names in save.carried.items() for name in names}
        fixed = digests_of_fixed(self._places, held, save.known)
        return {
            "generators": save.generators,
            "values": save.values,
            "orders": read_by_samplers(self._loader, held, save.carried),
            "moved": self.unkept,
            "fixed": unchanged(self._fixed, fixed, moved_since | {*self.unkept})
            | {path: one for path, one in self._fixed_data.items() if path not in self.unkept},
            "evaluation": self._evaluation.state_dict(),
            **self.parts.state_dict(),
        }

    def _take(self, held: Sequence[Held]) -> _Save:
        now, known = self._fingerprints.take(held)
        clocks = {
            name for _, place, _ in held if isinstance(place, FunctionVariables) for name in place.timed()
        }
        save = _Save(now, known, dict.fromkeys(moved(self._then, now)), Room(clocks=clocks))
        for path in self._find_stop_notes(held):
            save.unkept.pop(path, None)
        for owner, _, values in held:
            generators = states_of(values)
            if generators:
                save.generators.setdefault(owner, {}).update(generators)
            save.carry(owner, [name for name in generators if f"{owner}.{name}" in save.unkept])
            others = {name: value for name, value in values.items() if name not in generators}
            left = save.room.left
            try:
                kept = self._take_together(save, owner, others)
            except Exception:  # it holds what can't be kept, too much, or objects that raise what they like
                save.room.left = left
                continue
            save.taken |= {id(others[name]) for name in kept}
            save.modules += [others[name] for name in kept if isinstance(others[name], torch.nn.Module)]
            if found := {name: one for name, one in kept.items() if one is not None}:
                save.values.setdefault(owner, {}).update(found)
            save.carry(owner, found, elsewhere=kept.keys() - found)
        for path, value in self._find_hiding(held):
            if (first := self._hiding.get(path)) is not None and first() is not value:
                save.unkept[path] = None
        return save

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
        trainer = self._trainer
        stopped = trainer is not None and not self.stopped_outside and trainer.control.should_training_stop
        return bool(stopped and trainer.state.global_step < trainer.state.max_steps)

    def _ask(self) -> None:
        with contextlib.suppress(Exception):  # of objects of the script's own
            self._stops.ask(self._places.asking())

    def _settle(self, held: Iterable[Held]) -> None:
        """Note what holds now: none of it says that the training is to stop, for it goes on."""
        self._ask()
        for owner, _, values in held:
            self._stops.settle(owner, values)

    def _take_together(self, save: _Save, owner: str, values: Mapping[str, Any]) -> dict[str, Kept | None]:
        """Return what is kept of those of an object's attributes that have moved: of all of them, or UnkeptError.

        They go together: a flag that says of a file that it is open is of no use without the file. None: it is kept
        in another place already. A library's object that was there from the begin may be left out.
        """
        names = [name for name in values if self._is_to_keep(f"{owner}.{name}", values[name], save.unkept)]
        for name, value in values.items() if names else ():
            path = f"{owner}.{name}"
            empty = path in self._then or path not in self._there
            came = path not in save.now or (self._then.get(path, _NONE) == _NONE and is_meter(value))
            if came and empty and has_come(value, save.known):
                raise UnkeptError
        kept: dict[str, Kept | None] = {}
        for name in names:
            value = values[name]
            if id(value) in save.taken and not isinstance(value, (bool, int, float, str)):
                kept[name] = None
                continue
            first, left = self._then.get(f"{owner}.{name}"), save.room.left
            try:
                kept[name] = take_attribute(value, save.room, save.known, name=name, first=first)
            except UnkeptError:
                defined = name_of_definition(value) is not None or isinstance(value, functools.partial)
                if not (defined or is_meter(value)):
                    raise
                save.room.left = left
                # Where there was none at the begin, each start makes it, as it does its methods.
                if defined and first in (None, _NONE):
                    kept[name] = None
        return kept

    def _is_to_keep(self, path: str, value: Any, unkept: Collection[str]) -> bool:
        """Tell whether an attribute that has moved is to be kept: an iterator, or a cache, of the begin is said."""
        return path in unkept and not ((is_iterator(value) or is_drawing_cache(value)) and path in self._then)

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Put back what was kept; return the paths of what wasn't, and begins as the script makes it."""
        places: dict[str, Place] = {}
        with contextlib.suppress(Exception):  # of objects of the script's own: all that was kept is lost then
            places = dict(self._places.all())
        self._values, self._generators = state.get("values", {}), state.get("generators", {})
        self.unfit = self._put(places)
        with contextlib.suppress(Exception):  # the same
            self._settle([Held(owner, place, place.values()) for owner, place in places.items()])
        self.parts.load_state_dict(state)
        self._evaluation.load_state_dict(state.get("evaluation", {}))
        return list(state.get("moved", ()))

    def made_otherwise(self, state: Mapping[str, Any]) -> list[str]:
        """Return the paths of what training leaves as it is, and this start has made otherwise than that of a state."""
        return made_otherwise(state.get("fixed", {}), self._fixed_data | self._fixed)

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
