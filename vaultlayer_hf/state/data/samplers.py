"""What the order of a loader follows from: generators, counters and weights of the loader and of its samplers."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from vaultlayer_hf.state.data.inner import own_numbers, put_generators
from vaultlayer_hf.state.data.weights import KEYS, put_weights, take_weights
from vaultlayer_hf.state.generator_states import states_of

_INSIDE = ("base_dataloader", "dataloader", "batch_sampler", "sampler", "iterable")
"""Where loaders and samplers keep what they draw from, and a bar of tqdm's the loader that it shows."""
_COUNTERS = ("epoch", "iteration", "initial_seed")
"""What samplers derive their order from."""
_OWN = "own generators"
"""Name of what a script's own sampler draws from, whatever it calls it."""
_MOVED = "own counters"
"""Name of what of its numbers has moved since they were first seen: the others are the script's to choose."""
_first: weakref.WeakKeyDictionary[Any, dict[str, int | float]] = weakref.WeakKeyDictionary()
_LIBRARIES = ("torch", "torchdata", "accelerate", "transformers", "datasets")
"""Their loaders and samplers draw from ``generator`` alone."""

SamplerStates = dict[str, dict[str, Any]]


def parts(loader: Any) -> dict[str, Any]:
    """Return a loader and what it draws its order from, by path."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", loader)]
    while waiting:
        path, part = waiting.pop(0)
        if part is None or any(part is other for other in found.values()):
            continue
        found[path] = part
        for name in _INSIDE:
            inner = getattr(part, name, None)
            if inner is not None and not isinstance(inner, (int, str)):
                waiting.append((f"{path}.{name}".lstrip("."), inner))
    return found


def looks_ahead(loader: Any) -> bool:
    """Tell whether a loader is one of accelerate's: these fetch a batch ahead, and say which is the last."""
    return hasattr(loader, "end_of_dataloader")


def left_out(loader: Any) -> int:
    """Return how many batches a loader leaves out at its begin, as accelerate's ``skip_first_batches`` makes one."""
    found = (getattr(part, "skip_batches", 0) for part in parts(loader).values())
    return next((one for one in found if isinstance(one, int) and one), 0)


def take_samplers(loader: Any) -> SamplerStates:
    """Return the generators' states, counters and weights from which a loader's next order follows."""
    states: SamplerStates = {}
    for path, part in parts(loader).items():
        state: dict[str, Any] = {
            name: value for name in _COUNTERS if isinstance(value := getattr(part, name, None), int)
        }
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            state["generator"] = generator.get_state()
        if has_own_class(part):
            own = states_of(vars(part))
            own.pop("generator", None)
            first = _first_numbers(part)
            moved = {name: value for name, value in own_numbers(part).items() if first.get(name) != value}
            if hasattr(part, "set_epoch"):  # a pass that begins sets them
                moved = {}
            state |= {name: found for name, found in ((_OWN, own), (_MOVED, moved)) if found}
        state |= take_weights(part)
        if state:
            states[path] = state
    return states


def put_samplers(loader: Any, states: SamplerStates, *, began: bool = False) -> None:
    """Put back what ``take_samplers`` returned, where the loader still has such a part.

    ``began``: of a pass that has begun, so weights that the script has set since don't count.
    """
    here = parts(loader)
    put_sampler_weights(loader, states, began=began)
    for path, state in states.items():
        if path not in here:
            continue
        part: Any = here[path]
        if has_own_class(part):
            _first_numbers(part)
        for name, value in state.items():
            if name in KEYS:
                continue
            if name == _OWN:
                put_generators(part, value)
            elif name == _MOVED:
                vars(part).update(
                    (counter, number) for counter, number in value.items() if counter in vars(part)
                )
            elif name != "generator":
                setattr(part, name, value)
            elif isinstance(part.generator, torch.Generator):
                part.generator.set_state(value)
            else:
                part.generator = torch.Generator().set_state(value)  # made by the first pass


def put_sampler_weights(loader: Any, states: SamplerStates, *, began: bool = True) -> None:
    """Put back the samplers' weights alone: behind the opening of a pass that goes on, those of the save."""
    for path, part in parts(loader).items():  # each: this may be its first sight
        put_weights(part, states.get(path, {}), began=began)


def has_own_class(part: Any) -> bool:
    """Tell whether a loader's part is of a class of the script's own."""
    return type(part).__module__.partition(".")[0] not in _LIBRARIES and hasattr(part, "__dict__")


def _first_numbers(part: Any) -> dict[str, int | float]:
    try:
        return _first.setdefault(part, own_numbers(part))
    except TypeError:  # it can't be told apart from others, or noted
        return own_numbers(part)


def raise_counters(loader: Any, states: SamplerStates) -> None:
    """Put counters back that are lower than they were: a script that sets them itself has done so already."""
    here = parts(loader)
    for path, state in states.items():
        for name, value in state.items():
            found = getattr(here.get(path), name, None)
            if isinstance(found, int) and (found < value or name == "initial_seed"):
                setattr(here[path], name, value)


def generators_only(states: SamplerStates) -> SamplerStates:
    """Return the states without counters that a loop sets: for a pass of which the epoch was set already."""
    return {
        path: {name: value for name, value in state.items() if name in ("generator", _OWN, _MOVED, *KEYS)}
        for path, state in states.items()
    }


def without_seeded_anew(loader: Any, states: SamplerStates) -> SamplerStates:
    """Return states without those of generators that the script has just seeded with another number than they had.

    So does a loop that seeds each epoch by its number, or makes a loader with such a generator. accelerate's samplers
    seed theirs by themselves.
    """
    if looks_ahead(loader):
        return states
    here = parts(loader)
    return {
        path: {
            name: value
            for name, value in state.items()
            if name != "generator" or not _is_seeded_anew(getattr(here.get(path), "generator", None), value)
        }
        for path, state in states.items()
    }


def _is_seeded_anew(now: Any, then: torch.Tensor) -> bool:
    if not isinstance(now, torch.Generator) or now.device.type != "cpu":
        return False
    seed = now.initial_seed()
    fresh = torch.Generator().manual_seed(seed).get_state()
    return torch.equal(now.get_state(), fresh) and torch.Generator().set_state(then).initial_seed() != seed
