"""A smaller micro-batch with more accumulation: the global batch, and so the training, stays what it was."""

from __future__ import annotations

from typing import Any

_MICRO, _ACCUMULATION = "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"


def divide(args: Any, by: int) -> None:
    """Make a TrainingArguments' micro-batch smaller and its accumulation larger by a factor, once.

    Before the Trainer is made. Nothing changes where the micro-batch can't be divided by ``by``.
    """
    if by <= 1 or getattr(args, "_vaultlayer_divided", False) or args.per_device_train_batch_size % by:
        return
    args.per_device_train_batch_size //= by
    args.gradient_accumulation_steps *= by
    # TRL's loaders (GRPO, RLOO) give this many micro-batches at once; the configuration has reckoned with the old ones.
    if isinstance(generated := getattr(args, "steps_per_generation", None), int):
        args.steps_per_generation = generated * by
    args._vaultlayer_divided = by  # what trainer/micro_batches.py compares between ranks
    for config in _deepspeed_configs(args):
        _divide_deepspeeds(config, by)


def _deepspeed_configs(args: Any) -> list[dict[str, Any]]:
    """Return DeepSpeed's configurations that belong to the arguments, each once.

    Where they come from ``TrainingArguments(deepspeed=…)``, "auto" has been filled in with the old numbers by now,
    and the engine would reckon with those. From `accelerate launch` they are filled in later.
    """
    plugin = getattr(args, "deepspeed_plugin", None)
    owners = (getattr(args, "hf_deepspeed_config", None), getattr(plugin, "hf_ds_config", None))
    return list({id(owner.config): owner.config for owner in owners if owner is not None}.values())


def _divide_deepspeeds(config: dict[str, Any], by: int) -> None:
    """Change the numbers; "auto" and what isn't there follow the arguments by themselves."""
    micro, accumulation = config.get(_MICRO), config.get(_ACCUMULATION)
    if isinstance(micro, int) and micro % by == 0:
        config[_MICRO] = micro // by
    if isinstance(accumulation, int):
        config[_ACCUMULATION] = accumulation * by
