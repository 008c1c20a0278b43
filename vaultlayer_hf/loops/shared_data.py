"""What loaders of one run share: a data set, a generator, a sampler, a count that a class keeps.

A checkpoint has it in the place of each of them, as it was at the save. The first loader that goes on brings it back,
and its pass moves it on: the next one must leave it as it is then.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from vaultlayer_hf.loops.ways import LoaderPosition
from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.inner import InnerState, owners
from vaultlayer_hf.state.data.samplers import SamplerStates, parts
from vaultlayer_hf.state.data.sources import unwrapped
from vaultlayer_hf.state.generator_states import is_generator


class SharedData:
    """What the loaders hold that have gone on, or begun, since the checkpoint was read."""

    def __init__(self) -> None:
        self._held: list[Callable[[], Any]] = []
        self._names: set[str] = set()

    def note(self, loader: Any, place: LoaderPosition | None) -> None:
        """Note what a loader holds whose pass begins, and what its place brings back. Raises what its parts raise."""
        for one in [*_sampler_parts(loader), *(thing for _, thing in _inner_things(loader))]:
            if not self._holds(one):
                self._held.append(_held(one))
        if place is not None and place.position is not None:
            self._names |= {name for path in place.position.now.inner if (name := _global_name(path))}

    def rest_of(self, loader: Any, place: LoaderPosition) -> LoaderPosition:
        """Return a loader's place without what others have brought back already. Raises what its parts raise."""
        position = place.position
        if position is not None:
            now = replace(position.now, inner=self._rest_of_inner(loader, position.now.inner))
            position = replace(position, between=self._rest_of_samplers(loader, position.between), now=now)
        return replace(place, between=self._rest_of_samplers(loader, place.between), position=position)

    def _holds(self, thing: Any) -> bool:
        return any(held() is thing for held in self._held)

    def _rest_of_samplers(self, loader: Any, states: SamplerStates) -> SamplerStates:
        here, rest = parts(loader), {}
        for path, state in states.items():
            part = here.get(path)
            if part is not None and self._holds(part):
                continue
            generator = getattr(part, "generator", None)
            shared = generator is not None and self._holds(generator)
            rest[path] = {name: value for name, value in state.items() if name != "generator" or not shared}
        return rest

    def _rest_of_inner(self, loader: Any, inner: InnerState) -> InnerState:
        shared = [path for path, thing in _inner_things(loader) if self._holds(thing)]
        return {
            path: value
            for path, value in inner.items()
            if _global_name(path) not in self._names
            and not any(path == one or path.startswith((f"{one}.", f"{one}:")) for one in shared)
        }


def _sampler_parts(loader: Any) -> Iterator[Any]:
    for part in parts(loader).values():
        yield part
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            yield generator


def _inner_things(loader: Any) -> Iterator[tuple[str, Any]]:
    """Yield the data sets and the collator of a DataLoader, and generators that they hold, as ``Inner`` names them."""
    base = base_of(loader)
    if not isinstance(base, torch.utils.data.DataLoader):
        return
    for path, owner in owners(dataset=unwrapped(base.dataset), collate=base.collate_fn).items():
        yield path, owner
        for name, value in list(vars(owner).items()):
            if is_generator(value):
                yield f"{path}.{name}", value


def _global_name(path: str) -> str:
    """Return the part of a path that names what is the same for all: of a class, a module, a function; else nothing."""
    return path.partition(":")[2]


def _held(thing: Any) -> Callable[[], Any]:
    if is_generator(thing):  # small, and not all kinds can be held weakly
        return lambda: thing
    try:
        return weakref.ref(thing)
    except TypeError:  # plain data, such as a list, which has no state
        return lambda: None
