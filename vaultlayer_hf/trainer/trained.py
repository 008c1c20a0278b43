"""What a Trainer trains: which of it a checkpoint holds, and whether all of it is finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vaultlayer_hf.state.finite import nonfinite_later, nonfinite_state
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.saved_digests import StateDigests, StateTensors, list_tensors
from vaultlayer_hf.state.tensor_digests import is_shard


@dataclass(frozen=True)
class Trained:
    """What a Trainer trains, as it hands it to its callbacks.

    Attributes:
        model: may be wrapped.
        optimizer: may be wrapped; None where there is none yet.
        scheduler: of the learning rate; None where there is none.
    """

    model: Any
    optimizer: Any = None
    scheduler: Any = None

    @cached_property
    def sharded(self) -> bool:
        """Whether each rank holds a part of the model of its own, as with FSDP and ZeRO-3."""
        return any(map(is_shard, self.model.parameters()))

    def nonfinite(self, rank: int, log_history: Sequence[dict[str, Any]]) -> str:
        """Return what of it is nan, or of the newest loss in the Trainer's log, in words; empty: all is finite.

        Where all ranks hold the same, rank 0 looks for all. ``logging_nan_inf_filter`` keeps a nan out of the log, so
        that a loss alone doesn't tell.
        """
        if rank and not self.sharded:
            return ""
        return nonfinite_state({"": peeled(self.model)}, [self.optimizer], _newest_loss(log_history))

    def nonfinite_later(
        self,
        rank: int,
        log_history: Sequence[dict[str, Any]],
        later: Callable[[Any], Callable[[], Any]],
    ) -> Callable[[], str]:
        """Return a function that gives later, on any thread, what ``nonfinite`` would give now.

        Shards are looked at now: no copy holds them.
        """
        if rank or self.sharded:
            found = self.nonfinite(rank, log_history)
            return lambda: found
        loss = _newest_loss(log_history)
        return nonfinite_later({"": peeled(self.model)}, [self.optimizer], loss, later)

    def digests(self, world_size: int) -> StateDigests:
        """Return the digests of the part of it that a checkpoint of the Trainer holds."""
        return self.tensors(world_size).digests()

    def tensors(self, world_size: int) -> StateTensors:
        """Return the tensors of the part of it that a checkpoint of the Trainer holds."""
        inner = peeled(self.model)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        # DeepSpeed partitions the optimizer's state in its own way, and loads it strictly itself.
        own = any("deepspeed" in type(one).__module__ for one in (self.model, self.optimizer, optimizer))
        return list_tensors(
            {"": inner},
            [] if own else [optimizer],
            [self.scheduler],
            trained_only=is_adapter(inner),
            left_out=getattr(inner, "_keys_to_ignore_on_save", None) or (),
            world_size=world_size,
            sharded=self.sharded,
        )


def _newest_loss(log_history: Sequence[dict[str, Any]]) -> Any:
    return next((entry["loss"] for entry in reversed(log_history) if "loss" in entry), None)


def is_adapter(model: Any) -> bool:
    """Tell whether the Trainer saves only what is trained of a model, as it does with PEFT."""
    model = peeled(model)
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def is_of_adapters(name: str, model: Any) -> bool:
    """Tell whether a parameter of a ``peeled`` model with adapters, by its name, is one of theirs. Pure."""
    return any(f".{adapter}." in f"{name}." for adapter in model.peft_config)
