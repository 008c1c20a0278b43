"""Smoke test of an installed wheel: run by CI in a folder that is not the checkout.

A training run is stopped half way and started again with nothing on its disk; it must resume.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments, set_seed

import vaultlayer_hf
from vaultlayer_hf import Trainer, open_vault


def train(folder: Path, steps: int) -> Trainer:
    """Train a tiny Llama for ``steps`` steps, with the vault beside its output."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (64, 16))]
    arguments = TrainingArguments(
        output_dir=str(folder / "output"),
        max_steps=steps,
        save_steps=5,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=LlamaForCausalLM(config), args=arguments, train_dataset=rows, resume=str(folder / "vault")
    )
    trainer.train()
    return trainer


def main() -> None:
    """Exit with a message where something is wrong."""
    place = Path(vaultlayer_hf.__file__)
    if "site-packages" not in place.parts:
        sys.exit(f"not the installed package: {place}")
    folder = Path(tempfile.mkdtemp(prefix="vl-smoke-"))
    try:
        train(folder, 10)
        shutil.rmtree(folder / "output")
        trainer = train(folder, 20)
        with open_vault(str(folder / "vault")) as vault:
            steps = [commit.step for commit in vault.checkpoints()]
            if trainer.state.global_step != 20 or 10 not in steps or steps[-1] != 20:
                sys.exit(f"ended at step {trainer.state.global_step} with commits {steps}")
            if {commit.token for commit in vault.checkpoints()} != {1, vault.checkpoints()[-1].token}:
                sys.exit("the second run didn't take the vault over from the first")
    finally:
        shutil.rmtree(folder)
    print("smoke: resumed from step 10, ended at step 20")


if __name__ == "__main__":
    main()
