"""The state of objects beside a model, a file each: written by ``torch.save``, and read back into them.

Models take part without what DDP, torch.compile and the like put around them, and by plain names, so that the next
start may wrap them in another way.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.state.tensor_digests import plain_name


def check_stateful(name: str, thing: Any) -> None:
    """Raise SettingsError for an object, called ``name``, whose state can't be had or put back."""
    if not all(callable(getattr(thing, one, None)) for one in ("state_dict", "load_state_dict")):
        raise SettingsError(
            f"{name}: an object of type {type(thing).__name__} has no state_dict and load_state_dict"
        )


def write_state(path: Path, state: Any) -> None:
    """Write a state dictionary by ``torch.save``."""
    files.write_atomically(path, lambda temporary: torch.save(state, temporary))


def read_state(path: Path) -> Any:
    """Read what ``write_state`` has written, to the CPU; a pickle only where a state needs one.

    Raises ResumeError.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # an object of the script's own: the vault is trusted as the script is
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ResumeError(f"{path.name} of {path.parent.name} can't be loaded: {error}") from error


def peeled(model: Any) -> Any:
    """Return a model without what DDP, DataParallel, DeepSpeed and torch.compile put around it.

    By their classes: a model of the script's own may have a part that it calls ``module``, and is no wrapper of it.
    """
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, (DistributedDataParallel, DataParallel)) or any(
            cls.__name__ == "DeepSpeedEngine" for cls in type(model).__mro__
        ):
            model = model.module
        else:
            return model


def load_plain(model: torch.nn.Module, state: dict[str, Any]) -> None:
    """Load a state whose names, or the model's, may have parts of wrappers in them, as within a compiled layer.

    A tensor that the model has under several names (tied weights) may stand there under one of them. Raises what
    ``load_state_dict`` raises.
    """
    own = model.state_dict()
    names = {plain_name(name): name for name in own}
    found = {names.get(plain_name(name), name): value for name, value in state.items()}
    if len(found) < len(own):
        places = {_place(own[name]): value for name, value in found.items() if name in own}
        found |= {
            name: places[_place(value)]
            for name, value in own.items()
            if name not in found and _place(value) in places
        }
    model.load_state_dict(found)


def load_in_place(thing: Any, state: Any) -> None:
    """Call an object's ``load_state_dict``; of an optimizer's groups see ``groups_stay``."""
    with groups_stay([thing]):
        thing.load_state_dict(state)


@contextmanager
def groups_stay(optimizers: Iterable[Any]) -> Iterator[None]:
    """Around a load into optimizers: their groups, a rate in these that is a tensor, and their state stay the objects.

    torch puts new ones in their place. But an optimizer around this one (Lookahead, SAM) may hold the groups that were
    there, and the script the tensor: what these set then would be rates that nobody trains with.

    Args:
        optimizers: those of accelerate are looked through; what loads in a way of its own is left alone.
    """
    bare = [one for one in map(_bare, optimizers) if one is not None]
    before = [(one, one.param_groups, list(one.param_groups), one.state) for one in bare]
    yield
    for one, groups, there, states in before:
        if one.param_groups is not groups and len(there) == len(one.param_groups):
            for group, loaded in zip(there, one.param_groups, strict=True):
                _fill(group, dict(loaded))
            groups[:] = there
            one.param_groups = groups
        if one.state is not states:
            brought = dict(one.state)
            states.clear()
            states.update(brought)
            one.state = states


def unwrapped_optimizer(optimizer: Any) -> Any:
    """Return an optimizer without accelerate's wrapper."""
    while any(cls.__name__ == "AcceleratedOptimizer" for cls in type(optimizer).__mro__):
        optimizer = optimizer.optimizer
    return optimizer


def _bare(optimizer: Any) -> Any:
    """Return an optimizer that loads as torch's do, without accelerate's wrapper; None where it doesn't."""
    optimizer = unwrapped_optimizer(optimizer)
    # One around another that loads in a way of its own has the inner one's groups, and sees to that itself.
    as_torch = getattr(type(optimizer), "load_state_dict", None) is torch.optim.Optimizer.load_state_dict
    there = hasattr(optimizer, "param_groups") and hasattr(optimizer, "state")
    return optimizer if as_torch and there else None


@torch.no_grad()
def _fill(group: dict[str, Any], loaded: dict[str, Any]) -> None:
    for name, value in loaded.items():
        then = group.get(name)
        if not (isinstance(then, torch.Tensor) and isinstance(value, torch.Tensor)):
            continue
        if (then.shape, then.dtype) == (value.shape, value.dtype):
            loaded[name] = then.copy_(value)
    group.clear()
    group.update(loaded)


def _place(value: Any) -> Any:
    """Return what two names of one tensor have in common; something of its own for what is no tensor."""
    if not isinstance(value, torch.Tensor) or not value.data_ptr():
        return id(value)
    return value.data_ptr(), value.shape, value.dtype
