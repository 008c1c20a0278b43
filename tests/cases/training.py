"""The training of most cases, on both sides: with a vault, or as people resume with stock transformers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from tests.kit.models import tiny_llama
from tests.trainer import kit
from vaultlayer_hf import resumable

ROWS = [
    {"input_ids": row, "labels": row}
    for row in torch.randint(0, 64, (20, 16), generator=torch.Generator().manual_seed(1))
]
"""A data set that is a list: 10 steps of two rows are an epoch."""


class Begun(TrainerCallback):
    """Notes the steps at which trainings begin."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)


TRL: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_steps": 12,
    "save_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "seed": 3,
}
"""Arguments of TRL's configurations for a small training."""


def made(
    side: str,
    out: str,
    vault: str | None,
    cls: Any = transformers.Trainer,
    *,
    die: tuple[int, int] | None = None,
    callbacks: list[Any] | None = None,
    settings: Any = None,
    **more: Any,
) -> Any:
    """Return a Trainer of a side. ``die``: SIGKILL at the end of a step, once the vault holds another."""
    every = list(callbacks or [])
    if die is not None:
        every.append(kit.KillAt(die[0], vault or "", die[1] if vault else 0))
    more.setdefault("train_dataset", ROWS)
    if side == "stock" or vault is None:
        return kit.trainer(out, cls=cls, callbacks=every, **more)
    return kit.trainer(out, cls=resumable(cls), resume=settings or vault, callbacks=every, **more)


def trl_model() -> Any:
    """Return a model for the words of ``tests.trainer.programs.tokenizer``; the same each time."""
    return tiny_llama(64, 16, layers=1, seed=0, max_position_embeddings=64, pad_token_id=62, eos_token_id=63)


def trl_made(cls: Any, side: str, vault: str | None, die: list[int] | None, **more: Any) -> Any:
    """Return a trainer of TRL of a side; ``die`` as with ``made``."""
    callbacks = [kit.KillAt(die[0], vault or "", die[1] if vault else 0)] if die else []
    if side == "stock" or vault is None:
        return cls(callbacks=callbacks, **more)
    return resumable(cls)(callbacks=callbacks, resume=vault, **more)


def go(trainer: Any) -> Any:
    """Train as people do who want to go on where they can: with stock from the newest folder."""
    if hasattr(trainer, "_vaultlayer"):
        trainer.train()
    else:
        out = str(trainer.args.output_dir)
        trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if os.path.isdir(out) else None)
    return trainer


def digest(model: Any) -> str:
    """Return a short digest of a model's weights."""
    return kit.weights(getattr(model, "_orig_mod", model))[:10]


def doing(**actions: Callable[[Any], Any]) -> TrainerCallback:
    """Return a callback that calls functions with the Trainer's state."""
    return kit.Do(**actions)
