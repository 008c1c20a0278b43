"""Groups of parameters that a loop gives its optimizer on its way, as one that unfreezes layer after layer does.

The optimizer of a new start hasn't got them, and can't load a state that has. So a checkpoint says which parameters
they are, by the names that the models have for them, and a resume adds them first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.errors import ResumeError, SettingsError

FILE = "added_groups.pt"


def added_groups(
    optimizers: Mapping[str, Any], first: Mapping[str, int], models: Mapping[str, torch.nn.Module]
) -> dict[str, list[list[str]]]:
    """Return the names of the parameters in each group that came to an optimizer; optimizers without any left out.

    ``first``: how many groups each has begun with. Raises SettingsError for a parameter of no model.
    """
    names = {id(one): name for name, one in _named(models).items()}
    found = {}
    for key, optimizer in optimizers.items():
        groups = optimizer.param_groups[first[key] :]
        if any(id(one) not in names for group in groups for one in group["params"]):
            raise SettingsError(
                f"{key} was given a group with parameters that are in no model: add() what holds them"
            )
        if groups:
            found[key] = [[names[id(one)] for one in group["params"]] for group in groups]
    return found


def add_groups(
    saved: Mapping[str, list[list[str]]],
    optimizers: Mapping[str, Any],
    first: Mapping[str, int],
    models: Mapping[str, torch.nn.Module],
) -> None:
    """Give optimizers the groups that they had when the checkpoint was saved. Raises ResumeError."""
    named = _named(models)
    for key, groups in saved.items():
        unknown = [name for group in groups for name in group if name not in named]
        if key not in optimizers or unknown:
            what = f"the parameters {', '.join(unknown[:3])}" if unknown else key
            raise ResumeError(f"{FILE} names {what}, which this start hasn't got")
        there = len(optimizers[key].param_groups) - first[key]
        for group in groups[there:]:
            optimizers[key].add_param_group({"params": [named[name] for name in group]})


def _named(models: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    return {
        f"{prefix}{name}": one for prefix, model in models.items() for name, one in model.named_parameters()
    }
