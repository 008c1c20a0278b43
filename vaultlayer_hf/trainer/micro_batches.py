"""Ranks that train together have micro-batches of one size.

accelerate deals out the batches of one order of the data in turn, and each rank cuts that order by the size that it
knows itself. So where ranks know different sizes some samples are trained on twice and others never, and nothing says
so; with FSDP or DeepSpeed, whose every micro-batch is a collective, they wait for each other for ever.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.session import Session


class OtherMicroBatchError(RanksError):
    """Ranks have made their micro-batches smaller by different factors, each because of what it knew of memory.

    Attributes:
        divide: the largest of these factors: with it all ranks have what the one with the least memory needs.
    """

    def __init__(self, message: str, divide: int) -> None:
        super().__init__(message)
        self.divide = divide


def check_micro_batches(session: Session, args: TrainingArguments) -> None:
    """Compare the ranks' micro-batches, before the vault is claimed. All ranks.

    Where the script itself asks for different ones, as stock allows, it is said. Raises OtherMicroBatchError, on all
    ranks, where `vl run` has made them so; RanksError.
    """
    if session.ranks.world_size == 1:
        return
    sizes = [args.per_device_train_batch_size, args.gradient_accumulation_steps]
    found: list[Any] = session.ranks.gather([*sizes, getattr(args, "_vaultlayer_divided", 1)])
    if len({tuple(one) for one in found}) == 1:
        return
    low, high = min(found), max(found)
    words = " and ".join(
        f"rank {found.index(one)} takes {one[0]} samples {one[1]} times a step" for one in (high, low)
    )
    divides = [one[2] for one in found]
    if len(set(divides)) == 1:
        session.warn_all(
            EventKind.NOTICE,
            f"{words}: the data aren't dealt out evenly, so that some samples come twice and others never; "
            "give all ranks the same per_device_train_batch_size and gradient_accumulation_steps",
        )
        return
    raise OtherMicroBatchError(
        f"{words}, since memory has run out on one node and not on the other: all nodes must start again with the "
        "smaller micro-batch, which `vl run` does on each",
        max(divides),
    )
