"""Weights that accelerate wrote on one rank and several load, or the other way round: they have other names there.

accelerate writes the model as it has wrapped it. On several ranks that is DDP, which puts ``module.`` before each name;
on one rank nothing is put around it. So where the number of ranks has become one, or is no longer one, accelerate gets
for the length of a load what has the names of the file: the model within DDP, or something around the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.parallel import DistributedDataParallel

_AROUND = "module."


class _Around(torch.nn.Module):
    """A model under the names that it has within DDP."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


def can_rename(accelerator: Any) -> bool:
    """Tell whether the models' weights can be loaded under other names, by ``named_as_in``.

    Not where a hook of the script's own loads them, which gets the models as they are prepared, nor where something
    beside DDP is around one, such as ``torch.compile``.
    """
    if getattr(accelerator, "_load_model_state_pre_hook", None):
        return False
    inner = (one.module if isinstance(one, DistributedDataParallel) else one for one in accelerator._models)
    return not any(hasattr(one, "_orig_mod") for one in inner)


@contextmanager
def named_as_in(accelerator: Any, folder: Path) -> Iterator[None]:
    """Have ``load_state`` of a folder load each model under the names that its file there has."""
    before = accelerator._models
    if can_rename(accelerator):
        accelerator._models = [_named_as(model, _names(folder, at)) for at, model in enumerate(before)]
    try:
        yield
    finally:
        accelerator._models = before


def _named_as(model: Any, names: Collection[str]) -> Any:
    """Return what has these names; the model itself where nothing has, which accelerate says then."""
    own = set(model.state_dict()) if names else set()
    if own.issuperset(names):
        return model
    if isinstance(model, DistributedDataParallel):
        return model.module if own.issuperset(_AROUND + name for name in names) else model
    return _Around(model) if {_AROUND + name for name in own}.issuperset(names) else model


def _names(folder: Path, number: int) -> list[str]:
    """Return the names of the tensors in a model's file; none where there is no such file, or it can't be read."""
    end = f"_{number}" if number else ""
    safe, pickled = folder / f"model{end}.safetensors", folder / f"pytorch_model{end}.bin"
    try:
        if safe.exists():
            with safe_open(safe, framework="pt") as file:
                return list(file.keys())
        if pickled.exists():
            return list(torch.load(pickled, map_location="meta", mmap=True, weights_only=True))
    except Exception:  # whatever is wrong with the file, accelerate's own load says it
        return []
    return []
