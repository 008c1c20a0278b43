"""What a loop is asked for, as far as its objects tell: of what ``state/asked.py`` keeps and compares.

Taken when the loop is resumed, before anything is loaded: so it is what the script has made, not what a checkpoint has
brought. Optimizers and schedules take their numbers from a checkpoint; what is a class or a function is the script's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vaultlayer_hf.state.adapters import adapters_of
from vaultlayer_hf.state.asked import (
    CHECKPOINT_HOLDS,
    RANDOM_STATE_HOLDS,
    START_HOLDS,
    Asked,
    optimizer_name,
    trained_names,
)
from vaultlayer_hf.state.data_digest import data_digest, with_vocabularies
from vaultlayer_hf.state.schedules import schedules_name
from vaultlayer_hf.state.vocabularies import vocabulary_digests

_SPEED = {"foreach", "fused", "capturable", "differentiable"}
"""Options of optimizers that say how a step is computed, and not which."""
_MOVES = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter"}
"""What a schedule counts as it goes."""
_OF_START = {"scheduler", "mixed_precision", "gradient_accumulation_steps"}


def asked_of(
    models: Sequence[Any], optimizers: Sequence[Any], schedulers: Sequence[Any], loader: Any, **arguments: Any
) -> Asked:
    """Return what a loop with these objects is asked for; ``arguments``: what else is known, by name."""
    found = {**arguments, **_seed()}
    for part in (_optimizer_numbers, _schedule_numbers):
        try:
            found |= dict(part(optimizers if part is _optimizer_numbers else schedulers))
        except Exception:  # objects of the script's own: what they don't tell isn't compared
            continue
    return Asked(
        found,
        optimizer_name(optimizers),
        loader_digest(loader),
        adapters_of(list(models)),
        trained_names(models, optimizers),
    )


def loader_digest(loader: Any) -> str:
    """Return the digest of what a loader reads, and of what makes numbers of it; empty where nothing is known."""
    dataset, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    return with_vocabularies(data_digest(dataset), vocabulary_digests(dataset, collate_fn=collate))


def holds_of(asked: Asked, *, fork: bool = False) -> dict[str, str]:
    """Return, by an argument's name, which of two values holds; of a ``fork`` this start's, wherever it can."""
    if fork:
        return {"seed": RANDOM_STATE_HOLDS}
    holds = {name: START_HOLDS if name in _OF_START else CHECKPOINT_HOLDS for name in asked.arguments}
    if "total_steps" in holds:
        holds["total_steps"] = (
            f"{CHECKPOINT_HOLDS}. OneCycleLR raises an error at any step beyond its total_steps"
        )
    return {**holds, "seed": RANDOM_STATE_HOLDS}


def _seed() -> dict[str, int]:
    """Return the seed that the script has set: one above 32 bits was drawn by torch, and is another at each start."""
    seed = torch.initial_seed()
    return {"seed": seed} if seed < 2**32 else {}


def _optimizer_numbers(optimizers: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for number, outer in enumerate(optimizers):
        optimizer = getattr(outer, "optimizer", outer)
        for name in getattr(optimizer, "defaults", ()):
            if name in _SPEED:
                continue
            # A schedule notes the rate that it began with; the rate itself moves.
            key = "initial_lr" if name == "lr" else name
            values = [group.get(key, group.get(name)) for group in optimizer.param_groups]
            shown = dict.fromkeys(str(float(one) if isinstance(one, torch.Tensor) else one) for one in values)
            yield (f"{name} of optimizer {number}" if number else name), " and ".join(shown)
        highest = dict.fromkeys(str(group["max_lr"]) for group in optimizer.param_groups if "max_lr" in group)
        if highest:  # OneCycleLR's: that is the rate which a script names, and the first one follows from it
            yield (f"max_lr of optimizer {number}" if number else "max_lr"), " and ".join(highest)


def _schedule_numbers(schedulers: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    inner = [getattr(one, "scheduler", one) for one in schedulers]
    if inner:
        yield "scheduler", schedules_name(inner)
    for scheduler in inner:
        for name, value in scheduler.state_dict().items():
            plain = isinstance(value, (int, float)) and math.isfinite(value)
            if plain and not name.startswith("_") and name not in _MOVES:
                yield name, value
