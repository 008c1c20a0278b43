"""The training script of `vl demo`: an ordinary Trainer script with the one argument, ``resume=``.

A small Llama, from a config, learns the sources of Python's own standard library byte by byte, so nothing
is downloaded. `vl demo` starts it as a process of its own and kills it.

It prints one JSON object a line on stdout: ``{"start": step}``, then ``{"step": n}`` at each step, then
``{"end": step, "losses": [[step, loss], ...]}``, the history from the first step on.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments, set_seed

from vaultlayer_hf.trainer.trainer import Trainer

BLOCK = 128
"""Bytes in a sample."""

CORPUS = 4_000_000
"""Bytes of text, about: enough that no sample comes twice."""


class Bytes(Dataset[dict[str, torch.Tensor]]):
    """The text as samples of ``BLOCK`` bytes: int64 tensors of shape (BLOCK,), values 0 to 255."""

    def __init__(self, text: bytes) -> None:
        count = len(text) // BLOCK
        self._blocks = torch.frombuffer(bytearray(text[: count * BLOCK]), dtype=torch.uint8).view(
            count, BLOCK
        )

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = self._blocks[index].long()
        return {"input_ids": block, "labels": block}


def standard_library(limit: int = CORPUS) -> bytes:
    """Return the sources of Python's standard library, ordered by name, cut at ``limit`` bytes."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    if len(text) < 1000 * BLOCK:
        raise SystemExit(
            "the sources of Python's standard library aren't installed here: nothing to train on"
        )
    return bytes(text[:limit])


class _Report(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        print(json.dumps({"start": state.global_step}), flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        print(json.dumps({"step": state.global_step}), flush=True)


def main() -> None:
    """Train for ``--steps`` steps and leave the final weights in ``OUTPUT/final``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--save-steps", type=int, default=20)
    parser.add_argument("--vault", help="where checkpoints survive; without it the Trainer is the stock one")
    options = parser.parse_args()

    torch.set_num_threads(1)  # the order of a sum, and so its last bits, never depends on who has a core free
    set_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=BLOCK,
            attention_dropout=0.1,  # so that a lost random state would show in the weights
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.output),
            max_steps=options.steps,
            save_steps=options.save_steps,
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            logging_steps=5,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Bytes(standard_library()),
        callbacks=[_Report()],
        resume=options.vault,
    )
    trainer.train()
    trainer.save_model(str(options.output / "final"))
    losses = [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps({"end": trainer.state.global_step, "losses": losses}), flush=True)


if __name__ == "__main__":
    main()
