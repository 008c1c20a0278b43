"""What FSDP and DeepSpeed need to train on CPUs, and where they keep what a rank has of a model."""

from __future__ import annotations

from typing import Any

import torch


def believe_in_accelerators() -> None:
    """Have accelerate take FSDP's plugin: on CPUs it takes it only where it believes in several accelerators.

    Else it is plain DDP, in silence.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def zero_config(stage: int, **more: Any) -> dict[str, Any]:
    """Return a configuration of DeepSpeed's ZeRO for CPUs."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes
    return {"zero_optimization": {"stage": stage}, "zero_force_ds_cpu_optimizer": False, **more}


def zero_parts(optimizer: Any) -> list[torch.Tensor]:
    """Return what a rank has of the weights, in full precision, from DeepSpeed's optimizer."""
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        return list(optimizer.single_partition_of_fp32_groups)
    return list(optimizer.fp32_partitioned_groups_flat)


def local(value: Any) -> torch.Tensor:
    """Return what a rank has of a tensor that may be spread over ranks."""
    found: torch.Tensor = value.to_local() if hasattr(value, "to_local") else value
    return found
