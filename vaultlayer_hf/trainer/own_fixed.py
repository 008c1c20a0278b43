"""What a script makes at each start and training leaves as it is: a reference model, a teacher, weights of classes.

No checkpoint holds these, since each start makes them anew, and mostly the same. Where nothing seeds them, or where
they are made of the newest checkpoint in the place of the first model, they are others behind a resume, and the
training goes on with them to another end. So each save notes a digest of some of their content.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.data.inner import data_sets
from vaultlayer_hf.state.data_digest import spread
from vaultlayer_hf.state.object_kinds import is_of_script
from vaultlayer_hf.state.tensor_digests import Digests, differing, digest_tensors, is_shard
from vaultlayer_hf.trainer.data_holdings import held_by_data
from vaultlayer_hf.trainer.own_places import Held, OwnPlaces

_TENSORS, _ROWS = 8, 64
"""Tensors of one object, and rows of a tensor, that are looked at."""
_LONG = 1 << 16
"""Numbers of a row up to which all of them are looked at: an array may lie in a file, which each save would read."""
_SOME = "[some]"
"""How names end of tensors with longer rows: earlier checkpoints have a digest of whole rows, by the plain name."""

Fixed = dict[str, Digests]
"""Digests by the path of what holds the tensors, such as ``MyTrainer.teacher``."""


def digests_of_fixed(places: OwnPlaces, held: Iterable[Held], known: Collection[int]) -> Fixed:
    """Return digests of the tensors, arrays and modules that a script's own objects hold.

    Args:
        places: of the training. The Trainer's modules beside the model are looked at, those that a library has given it
            included (TRL's ``ref_model``).
        held: what these places hold.
        known: ids of what is carried elsewhere; none where that isn't known, and then nothing is looked at.
    """
    # Each save asks again: what is written through ``.data``, as an average's weights are, counts in no ``_version``.
    found: Fixed = {}
    for path, value in (*_of_trainer(places), *_of_held(held, known)) if known else ():
        try:
            tensors = list(_tensors(value, known))
            if any(is_shard(tensor) for _, tensor in tensors):  # to look into one is up to all ranks
                continue
            some = (tensors[place] for place in spread(len(tensors), _TENSORS))
            digests = digest_tensors(_some_of(name, tensor) for name, tensor in some)
        except Exception:  # of objects of the script's own: nothing is said of these
            continue
        if digests:
            found[path] = digests
    return found


def digests_of_data(dataset: Any, trainer: Any, held: Sequence[Held]) -> Fixed:
    """Return the same of what data sets and the collator hold, or their functions read, but for the rows themselves.

    Args:
        dataset: of the training.
        trainer: whose collator counts; None where it isn't known.
        held: what is looked at elsewhere.
    """
    found: Fixed = {}
    try:
        data, rows = held_by_data(dataset, trainer, held), {len(one) for one in data_sets(dataset)}
    except Exception:  # of the script's own
        return found
    for owner, values in data.items():
        for name, value in values.items():
            if _length(value) in rows:
                continue
            try:
                tensors = list(_tensors(value, ()))
                some = (tensors[place] for place in spread(len(tensors), _TENSORS))
                digests = digest_tensors(_some_of(part, tensor) for part, tensor in some)
            except Exception:  # the same
                continue
            if digests:
                found[f"{owner}.{name}"] = digests
    return found


def _length(value: Any) -> int:
    sized = isinstance(value, (dict, list, tuple)) or getattr(value, "ndim", 0) > 0
    return len(value) if sized else -1


def unchanged(then: Fixed, now: Fixed, carried: Collection[str]) -> Fixed:
    """Return those of ``then`` that are the same now and aren't among the paths that are carried. Pure."""
    return {path: one for path, one in then.items() if now.get(path) == one and path not in carried}


def made_otherwise(then: Mapping[str, Digests], now: Fixed) -> list[str]:
    """Return the paths that are in both, with another content. Pure."""
    return [
        path
        for path, digests in then.items()
        if path in now
        and differing({k: one for k, one in digests.items() if k + _SOME not in now[path]}, now[path])
    ]


def _of_trainer(places: OwnPlaces) -> Iterator[tuple[str, Any]]:
    trainer, carried = places.trainer, {id(one) for one in places.carried}
    for name, value in list(getattr(trainer, "__dict__", {}).items()):
        if isinstance(value, torch.nn.Module) and id(value) not in carried:
            yield f"{type(trainer).__name__}.{name}", value


def _of_held(held: Iterable[Held], known: Collection[int]) -> Iterator[tuple[str, Any]]:
    for owner, place, values in held:
        thing = getattr(place, "thing", None)
        # A library's module has tables of positions, which another machine may compute to other last bits.
        if not isinstance(thing, torch.nn.Module) or is_of_script(type(thing)):
            yield from ((f"{owner}.{name}", one) for name, one in values.items() if id(one) not in known)


def _tensors(value: Any, known: Collection[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a value by name: itself, a module's, or those in a list or a dictionary."""
    if isinstance(value, torch.nn.Module):
        every = [*value.named_parameters(), *value.named_buffers()]
        if not any(id(tensor) in known for _, tensor in every):  # the model itself, or around it
            yield from every
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in list(items):
            if isinstance(one, (torch.Tensor, numpy.ndarray)) and id(one) not in known:
                yield from ((str(name), tensor) for _, tensor in _tensors(one, known))
    elif isinstance(value, torch.Tensor):
        yield "", value
    elif isinstance(value, numpy.ndarray) and value.dtype.kind in "biuf":
        name, some = _some_of("", value)
        yield name, torch.from_numpy(numpy.array(some))


def _some_of(name: str, values: Any) -> tuple[str, Any]:
    """Return some rows of a tensor or an array, which share its memory, and of long rows some places, with their name.

    Of what this has returned it returns all.
    """
    steps = [
        max(1, length // _ROWS) if axis == 0 or math.prod(values.shape[axis:]) > _LONG else 1
        for axis, length in enumerate(values.shape)
    ]
    some = values[tuple(slice(None, None, step) for step in steps)] if steps else values
    return name + _SOME * any(step > 1 for step in steps[1:]), some
