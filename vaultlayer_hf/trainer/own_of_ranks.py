"""What rank 0 has kept of a script's own objects, for each of another number of ranks. Pure.

Most of it is the same on all ranks: how many steps there were, an average of the weights, which phase it is. So what
rank 0 held is the best that any rank can have. Not so random generators: with rank 0's, all ranks would draw the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vaultlayer_hf.state.generator_states import is_state


def of_rank_zero(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``OwnState.load_state_dict`` takes on any rank, of what rank 0 has kept.

    What is left out, since it is rank 0's alone, is named there as what the checkpoint doesn't hold.

    >>> state = {"moved": [], "generators": {"A": {"draws": ()}}, "values": {"A": {"count": ("plain", 3)}}}
    >>> shared = of_rank_zero(state)
    >>> shared["moved"], shared["values"]
    (['A.draws'], {'A': {'count': ('plain', 3)}})
    """
    lost = [f"{owner}.{name}" for owner, names in state.get("generators", {}).items() for name in names]
    values: dict[str, dict[str, Any]] = {}
    for owner, attributes in state.get("values", {}).items():
        drawing = [name for name, kept in attributes.items() if _draws(kept)]
        lost += [f"{owner}.{name}" for name in drawing]
        values[owner] = {name: kept for name, kept in attributes.items() if name not in drawing}
    moved = [*state.get("moved", ()), *lost]
    # What evaluations have drawn and counted is each rank's own share of their data.
    return {**state, "moved": moved, "generators": {}, "values": values, "evaluation": {}}


def names_of_others(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the paths of what two ranks held otherwise, of what ``of_rank_zero`` returns of the first one's.

    What is the same on two ranks is taken to be the same on all.

    >>> ours, theirs = ({"values": {"A": {"n": ("plain", 3), "sum": ("plain", one)}}} for one in (0.5, 0.25))
    >>> names_of_others(ours, theirs), names_of_others(ours, {})
    (['A.sum'], [])
    """
    values = second.get("values", {})
    return [
        f"{owner}.{name}"
        for owner, attributes in first.get("values", {}).items()
        for name, kept in attributes.items()
        if name in values.get(owner, {}) and not _draws(kept) and not _are_same(kept, values[owner][name])
    ]


def _are_same(one: Any, other: Any) -> bool:
    """Tell whether the same was kept of two values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_are_same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_are_same, one, other))
    return bool(one == other)


def _draws(kept: Any) -> bool:
    """Tell whether a random generator is within what is kept of a value."""
    if isinstance(kept, Mapping):
        return any(map(_draws, kept.values()))
    if not isinstance(kept, (list, tuple)):
        return False
    return (len(kept) == 2 and kept[0] == "generator" and is_state(kept[1])) or any(map(_draws, kept))
