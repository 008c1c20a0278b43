"""The run whose vault the command line's tests look at: a real training, in a process that was forked."""

from __future__ import annotations

import time
from typing import Any


def train(output: str, vault: str, **more: Any) -> None:
    """Train 60 steps with a save at 20, 40 and 60, each committed before the next."""
    import torch
    from transformers import TrainerCallback, TrainingArguments, set_seed

    from tests.kit.models import tiny_llama
    from vaultlayer_hf import Trainer, open_vault

    class Patient(TrainerCallback):
        """A save that finds the one before it still under way replaces it: so that none is, wait for each commit."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            while state.global_step and state.global_step % 20 == 0:
                with open_vault(vault) as opened:
                    if state.global_step in [commit.step for commit in opened.checkpoints()]:
                        break
                time.sleep(0.01)

    torch.set_num_threads(1)
    set_seed(0)
    model = tiny_llama()
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (64, 16))]
    args = TrainingArguments(
        output, max_steps=60, save_steps=20, logging_steps=10, per_device_train_batch_size=4, use_cpu=True,
        report_to=[], disable_tqdm=True, **more,
    )  # fmt: skip
    Trainer(model=model, args=args, train_dataset=rows, callbacks=[Patient()], resume=vault).train()
