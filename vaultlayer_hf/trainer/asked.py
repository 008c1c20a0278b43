"""What a Trainer is asked for, of what ``state/asked.py`` keeps and compares; and which of two values holds.

A resume of the Trainer loads the optimizer's groups and the schedule's place. What stands in these comes from the
checkpoint; what the Trainer makes anew from its arguments is this start's.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from transformers import TrainingArguments

from vaultlayer_hf.state.adapters import adapters_of
from vaultlayer_hf.state.asked import (
    CADENCES,
    CHECKPOINT_HOLDS,
    EVALUATION_DATA,
    RANDOM_STATE_HOLDS,
    SAVES_HOLD,
    START_HOLDS,
    STOCK_HOLDS,
    Asked,
    optimizer_name,
    plain_arguments,
    trained_names,
)
from vaultlayer_hf.state.data_digest import data_digest, with_vocabularies
from vaultlayer_hf.state.object_files import peeled
from vaultlayer_hf.state.schedules import schedules_name
from vaultlayer_hf.state.vocabularies import vocabulary_digests
from vaultlayer_hf.trainer.begun import Begun
from vaultlayer_hf.trainer.trained import Trained

HOLDS = {
    # Optimizers keep these in their state, and the schedule keeps the rate that it began with.
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_args"),
        CHECKPOINT_HOLDS,
    ),
    # A schedule's shape is a function, which isn't saved.
    **dict.fromkeys(("lr_scheduler_type", "warmup_steps", "warmup_ratio"), START_HOLDS),
    **dict.fromkeys(("max_grad_norm", "label_smoothing_factor", "bf16", "fp16"), START_HOLDS),
    **dict.fromkeys(("neftune_noise_alpha", "loss"), START_HOLDS),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better"), START_HOLDS),
    # The Trainer takes its whole state from the checkpoint, and these go by that.
    **dict.fromkeys(("eval_steps", "logging_steps"), STOCK_HOLDS),
    "save_steps": SAVES_HOLD,
    "max_steps": "this start's holds, also for the schedule of the learning rate",
    **dict.fromkeys(("seed", "data_seed"), RANDOM_STATE_HOLDS),
}
"""The arguments that are compared, with what holds where they differ. Sizes of batches are the data's business."""
FORK_HOLDS = {name: HOLDS[name] for name in ("seed", "data_seed", *CADENCES)}
"""The same of a fork: all else is this start's, wherever the Trainer lets it."""
_BASE = {item.name for item in fields(TrainingArguments)}
_LOSS = (
    "loss",
    "beta",
    "gamma",
    "alpha",
    "temperature",
    "clip",
    "penalt",
    "coef",
    "epsilon",
    "packing",
    "max_length",
)
"""Words in the names of those arguments of other Trainers (TRL's) that shape the loss, or what goes into it."""
_NO_CONFIG = (
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
    "quantization_config",
)
"""What a model's configuration has beside what the model computes, and what is compared elsewhere."""


def asked_for(begun: Begun, trainer: Any) -> Asked:
    """Return what a training is asked for: by its arguments, its optimizer, its data and its model.

    ``trainer``: None where it isn't known, and nothing is said of its loss.
    """
    args, model, optimizer = begun.args, begun.trained.model, begun.trained.optimizer
    dataset = getattr(begun.loader, "dataset", None)
    found = {name: getattr(args, name) for name in HOLDS if hasattr(args, name) and _counts(name, args)}
    found |= {"max_steps": begun.state.max_steps, "schedule": schedules_name([begun.trained.scheduler])}
    found |= _of_config(getattr(peeled(model), "config", None))
    found["lr_scheduler_kwargs"] = _text(getattr(args, "lr_scheduler_kwargs", None) or {})
    for item in fields(args):
        if item.name not in _BASE and any(word in item.name for word in _LOSS):
            value = getattr(args, item.name)
            if isinstance(value, (bool, int, float)) or item.name == "loss_type":
                found[item.name] = value
    if trainer is not None:
        loss = getattr(trainer, "compute_loss_func", None)
        found["loss"] = (
            getattr(loss, "__qualname__", type(loss).__name__) if loss is not None else "the model's own"
        )
        found["compute_loss"] = getattr(type(trainer).compute_loss, "__qualname__", "")
        found |= _of_collator(trainer.data_collator)
        if args.metric_for_best_model is not None:
            digest = data_digest(trainer.eval_dataset)
            # Of one that can be read, so that a difference is one of the data.
            if digest and "=" not in digest:
                found[EVALUATION_DATA] = digest
    return Asked(
        plain_arguments(found),
        optimizer_name([optimizer]),
        with_vocabularies(data_digest(dataset), vocabulary_digests(dataset, **_readers(trainer))),
        adapters_of([model]),
        trained_names([model], [optimizer]),
    )


def holds_of(begun: Begun, *, fork: bool) -> dict[str, str]:
    """Return which of two values holds, by argument; ``fork``: it is a fork that keeps its own numbers.

    Where a step has another number of samples than it had, ``max_steps`` differs though the same epochs are asked for.
    """
    holds = FORK_HOLDS if fork else HOLDS
    if begun.place is None:
        return holds
    epochs, state = begun.args.num_train_epochs, begun.state
    return {
        **holds,
        "max_steps": f"that is what num_train_epochs={epochs:g} comes to. The epochs are trained whole: what is left "
        f"needs {state.max_steps - state.global_step} more steps of this start's size, by which the schedule of the "
        "learning rate goes, too",
    }


def _counts(name: str, args: TrainingArguments) -> bool:
    """Tell whether an argument counts: steps between two saves don't where none is made by steps."""
    strategy = getattr(args, f"{name.removesuffix('_steps')}_strategy", None) if name in CADENCES else "steps"
    return str(getattr(strategy, "value", strategy)) == "steps"


def _readers(trainer: Any) -> dict[str, Any]:
    """Return what a Trainer makes numbers of its data with, by name."""
    return {
        "processing_class": getattr(trainer, "processing_class", None),
        "data_collator": getattr(trainer, "data_collator", None),
    }


def with_parts(asked: Asked, trained: Trained) -> Asked:
    """Return what a training is asked for with the optimizer and the schedule that it has now."""
    return replace(
        asked,
        arguments={**asked.arguments, "schedule": schedules_name([trained.scheduler])},
        optimizer=optimizer_name([trained.optimizer]),
        parameters=trained_names([trained.model], [trained.optimizer]),
    )


def _of_config(config: Any) -> dict[str, Any]:
    """Return the values of a model's configuration, by paths such as ``config.vision_config.hidden_size``."""
    if not callable(getattr(config, "to_dict", None)):
        return {}
    waiting: list[tuple[str, Any]] = [("config", config.to_dict())]
    found = {}
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [
                (f"{path}.{k}", v) for k, v in value.items() if k not in _NO_CONFIG and f"{k}"[:1] != "_"
            ]
        else:
            found[path] = value
    # Not among its values, since a checkpoint doesn't decide it: each start picks what its machine has.
    return {**found, "attn_implementation": getattr(config, "_attn_implementation", None)}


def _of_collator(collator: Any) -> dict[str, Any]:
    """Return a collator's name, and the numbers that it was made with."""
    if collator is None:
        return {}
    own = vars(collator) if hasattr(collator, "__dict__") and not hasattr(collator, "__qualname__") else {}
    numbers = {
        f"data_collator.{name}": value for name, value in own.items() if isinstance(value, (bool, int, float))
    }
    return {"data_collator": getattr(collator, "__qualname__", type(collator).__name__), **numbers}


def _text(options: Any) -> str:
    """Return options in one order: a dictionary, or its JSON from a command line."""
    return json.dumps(options, sort_keys=True, default=str) if isinstance(options, dict) else str(options)
