"""What a checkpoint's state is when it is saved, one small file a rank: ``vaultlayer_digests_<rank>.json``.

Behind the load of a resume the same is taken of what is in memory, and the two are compared: see ``tensor_digests`` for
why the digests of the files aren't enough. Where every rank holds the whole model, rank 0's file speaks for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.base import files
from vaultlayer_hf.state.tensor_digests import (
    Digests,
    differing,
    digest_tensors,
    model_tensors,
    optimizer_tensors,
)

FORMAT = 1
_SHOWN = 3
"""Names of tensors that a message holds, at most."""


def digests_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"vaultlayer_digests_{rank}.json"


@dataclass(frozen=True)
class StateDigests:
    """Digests of the state that one rank trains.

    Attributes:
        model: of the tensors that the checkpoint holds of the model.
        optimizer: of the tensors in the optimizer's state, by the parameter's number.
        schedule: the learning rate schedule's numbers by name; empty where there is none.
        world_size: of the run that saved it.
        sharded: whether other ranks hold other parts of it.
    """

    model: Digests = field(default_factory=dict)
    optimizer: Digests = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    world_size: int = 1
    sharded: bool = False

    def comparable(self, world_size: int) -> bool:
        """Whether a rank of a run with ``world_size`` ranks holds the same tensors as the one that wrote this.

        Where ranks hold parts of the model, another number of them divides it in another way.
        """
        return not self.sharded or self.world_size == world_size

    def write(self, folder: Path, rank: int) -> None:
        """Write it into a checkpoint folder. Raises OSError."""
        # A line for each tensor, by ``separators``: with ``indent`` Python's own encoder is taken, which is slow.
        content = json.dumps({"format": FORMAT, **vars(self)}, separators=(",\n", ": "), sort_keys=True)
        files.write_unflushed(folder / digests_name(rank), content.encode())


Named = list[tuple[str, Any]]


@dataclass(frozen=True)
class StateTensors:
    """The tensors of which the digests are taken, as they are listed at a save.

    Attributes: as of ``StateDigests``, with tensors in place of digests.
    """

    model: Named
    optimizer: Named
    schedule: dict[str, Any]
    world_size: int = 1
    sharded: bool = False

    def through(self, copy_of: Callable[[Any], Any]) -> StateTensors:
        """Return these with each tensor replaced by what ``copy_of`` gives for it, such as a copy of it."""
        return replace(
            self,
            model=[(name, copy_of(tensor)) for name, tensor in self.model],
            optimizer=[(name, copy_of(tensor)) for name, tensor in self.optimizer],
        )

    def digests(self) -> StateDigests:
        """Return the digests of their content, which is read now."""
        return StateDigests(
            model=digest_tensors(self.model),
            optimizer=digest_tensors(self.optimizer),
            schedule=self.schedule,
            world_size=self.world_size,
            sharded=self.sharded,
        )


def list_tensors(
    models: Mapping[str, torch.nn.Module],
    optimizers: Sequence[Any] = (),
    schedulers: Sequence[Any] = (),
    *,
    trained_only: bool = False,
    left_out: Collection[str] = (),
    world_size: int = 1,
    sharded: bool = False,
) -> StateTensors:
    """Return the tensors of a training's state, by name; their content isn't read.

    Args:
        models: by what stands before the names of their tensors: ``{"": model}`` for a single one; may be wrapped.
        optimizers: of torch, or with their ``param_groups`` and ``state``; others are passed over.
        schedulers: what has a ``state_dict``; others are passed over.
        trained_only: the checkpoint holds only what is trained of the models.
        left_out: names of tensors of a model that the checkpoint doesn't hold.
        world_size: number of ranks.
        sharded: whether other ranks hold other parts of it.
    """
    tensors = [
        (f"{prefix}{name}", tensor)
        for prefix, model in models.items()
        for name, tensor in model_tensors(model, trained_only=trained_only)
        if name not in left_out
    ]
    states = [
        (f"{number}/{name}" if number else name, tensor)
        for number, optimizer in enumerate(optimizers)
        if hasattr(optimizer, "param_groups") and hasattr(optimizer, "state")
        for name, tensor in optimizer_tensors(optimizer)
    ]
    return StateTensors(
        model=tensors,
        optimizer=states,
        schedule={
            f"{number}/{name}" if number else name: value
            for number, scheduler in enumerate(schedulers)
            for name, value in _numbers(scheduler).items()
        },
        world_size=world_size,
        sharded=sharded,
    )


def read_digests(folder: Path, rank: int) -> StateDigests | None:
    """Return what a checkpoint folder says of a rank's state; None where it says nothing that can be read.

    A checkpoint of an earlier version of this package, or one that the stock Trainer wrote, has no such file.
    """
    for name in (digests_name(rank), digests_name(0)):
        try:
            content = json.loads((folder / name).read_bytes())
            if content.pop("format") != FORMAT:
                return None
            found = StateDigests(**content)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if name == digests_name(rank) or not found.sharded else None
    return None


def state_differences(saved: StateDigests, loaded: StateDigests) -> dict[str, list[str]]:
    """Return what of the saved state isn't in memory, by part: model, optimizer, schedule. Pure."""
    found = {
        "model": differing(saved.model, loaded.model),
        "optimizer": differing(saved.optimizer, loaded.optimizer),
        "schedule": [name for name, value in saved.schedule.items() if loaded.schedule.get(name) != value],
    }
    return {part: names for part, names in found.items() if names}


def in_words(saved: StateDigests, differences: dict[str, list[str]]) -> str:
    """Say what of the saved state isn't in memory, with counts and examples. Pure."""
    totals = {
        "model": len(saved.model),
        "optimizer": len(saved.optimizer),
        "schedule": len(saved.schedule),
    }
    nouns = {
        "model": "tensors of the model",
        "optimizer": "tensors of the optimizer's state",
        "schedule": "values of the schedule",
    }
    return "; ".join(
        f"{len(names)} of {totals[part]} {nouns[part]} aren't what was saved, such as {', '.join(names[:_SHOWN])}"
        for part, names in differences.items()
    )


def _numbers(scheduler: Any) -> dict[str, Any]:
    """Return what of a schedule's state is plain numbers: where it is, and the rates that it has come to."""
    try:
        state = scheduler.state_dict()
    except Exception:  # a user's own object may lack it, or raise whatever it likes
        return {}
    return {
        str(name): value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if _is_plain(value) or (isinstance(value, list) and all(map(_is_plain, value)))
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value  # a nan is equal to nothing, itself included
