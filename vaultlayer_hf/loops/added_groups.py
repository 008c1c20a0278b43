"""Groups of parameters that a loop gives its optimizers on its way, and functions that its schedules get with them.

Which they are is a file of its checkpoint: a start gives them ahead of the load, which brings options and state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.state.added_functions import (
    Added,
    added_functions,
    give_functions,
    lost_function,
    with_functions,
    without_those_there,
)
from vaultlayer_hf.state.added_groups import UNNAMED, give_groups, groups_by_name, refused_groups
from vaultlayer_hf.state.object_files import read_state, write_state

FILE = "added_groups.pt"
_FUNCTIONS = "functions of schedules"
"""Key of the file beside the optimizers' names. No optimizer has it, so earlier versions refuse a file with it."""


class AddedGroups:
    """What came to the optimizers and the schedules of one loop since the script has made them."""

    def __init__(self) -> None:
        self._optimizers: dict[str, tuple[Any, int]] = {}
        self._schedules: dict[str, tuple[Any, list[int]]] = {}

    def note(self, name: str, thing: Any) -> None:
        """Note with how much an object begins; one that is known by this name has begun."""
        if any(known.get(name, (None,))[0] is thing for known in (self._optimizers, self._schedules)):
            return
        if isinstance(thing, torch.optim.Optimizer):
            self._optimizers[name] = thing, len(thing.param_groups)
        if functions := [len(one.lr_lambdas) for one in with_functions(thing)]:
            self._schedules[name] = thing, functions

    @property
    def lost(self) -> str:
        """Why no start can go on from a checkpoint of now, in words; empty where one can."""
        return next(filter(None, map(lost_function, self._functions().values())), "")

    @property
    def came(self) -> bool:
        """Whether an optimizer has more groups than it began with."""
        return any(len(one.param_groups) > first for one, first in self._optimizers.values())

    def write(self, folder: Path, models: Mapping[str, torch.nn.Module]) -> None:
        """Write what came, where something did. Raises OSError, SettingsError for a parameter of no model."""
        named = _named(models)
        found: dict[str, Any] = {}
        for key, (optimizer, first) in self._optimizers.items():
            groups = groups_by_name(optimizer.param_groups[first:], named)
            if any(UNNAMED in group for group in groups):
                raise SettingsError(
                    f"{key} was given a group with parameters that are in no model: add() what holds them"
                )
            if groups:
                found[key] = groups
        if functions := self._functions():
            found[_FUNCTIONS] = functions
        if found:
            write_state(folder / FILE, found)

    def give(self, folder: Path, models: Mapping[str, torch.nn.Module]) -> None:
        """Give the objects what they had besides when a checkpoint was saved. Raises ResumeError, OtherRunError."""
        if not (folder / FILE).exists():
            return
        named = _named(models)
        saved = read_state(folder / FILE)
        functions: dict[str, list[Added]] = saved.pop(_FUNCTIONS, {})
        for key, groups in saved.items():
            unknown = [name for group in groups for name in group if name not in named]
            if key not in self._optimizers or unknown:
                what = f"the parameters {', '.join(unknown[:3])}" if unknown else key
                raise ResumeError(f"{FILE} names {what}, which this start hasn't got")
            optimizer, first = self._optimizers[key]
            give_groups(optimizer, groups[len(optimizer.param_groups) - first :], named)
        for key, added in functions.items():
            if key not in self._schedules:
                continue  # its own load says so
            schedule = self._schedules[key][0]
            missing = without_those_there(schedule, added)
            if lost := lost_function(missing):
                raise refused_groups(folder, lost)
            try:
                give_functions(schedule, missing)
            except LookupError as error:
                raise refused_groups(
                    folder, f"the schedule's function isn't in this script: {error}"
                ) from error

    def _functions(self) -> dict[str, list[Added]]:
        """Return, by the schedule's name, the functions that came; those that none came to are left out."""
        found = {name: added_functions(thing, first) for name, (thing, first) in self._schedules.items()}
        return {name: added for name, added in found.items() if any(one["functions"] for one in added)}


def _named(models: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    return {
        f"{prefix}{name}": one for prefix, model in models.items() for name, one in model.named_parameters()
    }
