"""Groups of parameters that a loop gives its optimizers on its way: which they are is a file of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.state.added_groups import UNNAMED, give_groups, groups_by_name

FILE = "added_groups.pt"


def added_groups(
    optimizers: Mapping[str, Any], first: Mapping[str, int], models: Mapping[str, torch.nn.Module]
) -> dict[str, list[list[str]]]:
    """Return the names of the parameters in each group that came to an optimizer; optimizers without any left out.

    ``first``: how many groups each has begun with. Raises SettingsError for a parameter of no model.
    """
    named = _named(models)
    found = {}
    for key, optimizer in optimizers.items():
        groups = groups_by_name(optimizer.param_groups[first[key] :], named)
        if any(UNNAMED in group for group in groups):
            raise SettingsError(
                f"{key} was given a group with parameters that are in no model: add() what holds them"
            )
        if groups:
            found[key] = groups
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
        give_groups(optimizers[key], groups[there:], named)


def _named(models: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    return {
        f"{prefix}{name}": one for prefix, model in models.items() for name, one in model.named_parameters()
    }
