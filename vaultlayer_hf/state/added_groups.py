"""Groups of parameters that an optimizer is given on its way, as by a script that unfreezes layer after layer.

The optimizer of a new start hasn't got them, and can't load a state that has. So a checkpoint says which parameters
they are, by the names that the model has for them, and a resume adds them first. Their options come with the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.errors import OtherRunError

UNNAMED = "?"
"""Stands for a parameter that no model has."""


def groups_by_name(groups: Sequence[Mapping[str, Any]], named: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of the parameters in each group; ``UNNAMED`` for one that isn't among ``named``."""
    names = {id(one): name for name, one in named.items()}
    return [[names.get(id(one), UNNAMED) for one in group["params"]] for group in groups]


def give_groups(
    optimizer: Any, groups: Sequence[Sequence[str]], named: Mapping[str, torch.nn.Parameter]
) -> None:
    """Give an optimizer groups of these parameters, with options that a load of its state then replaces.

    Raises KeyError for a name that isn't among ``named``, ValueError for a parameter that it trains already.
    """
    # torch wants all groups of an optimizer with names, or none.
    with_names = any("param_names" in group for group in optimizer.param_groups)
    for group in groups:
        given = [(name, named[name]) if with_names else named[name] for name in group]
        optimizer.add_param_group({"params": given})


def refused_groups(folder: Path, why: str) -> OtherRunError:
    """Return the error for a checkpoint whose groups of mid-run a start can't have; ``why``: in words."""
    return OtherRunError(
        f"{folder.name} was saved when its optimizer had groups of parameters that were added in mid-run "
        f"(add_param_group), and {why}; or load the checkpoint's model in the script and name a new vault. Nothing was "
        "trained"
    )
