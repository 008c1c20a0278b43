"""Trainings that are killed right behind a save, with an upload that has come to nothing: a Trainer's, and a loop's.

Each prints the step at which it starts, and the step of each save that has returned to the training.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.trainer import kit
from vaultlayer_hf import Checkpointer, Settings, Trainer

SAVE_EVERY = 4
STEPS = 16


class _Script(transformers.TrainerCallback):
    def __init__(self, kill_at: int, vault: Path, outage: bool) -> None:
        self.kill_at, self.vault, self.outage = kill_at, vault, outage

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        print("START", state.global_step, flush=True)
        if self.kill_at == 0:
            os._exit(0)
        if self.outage:
            break_store(self.vault)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and state.global_step % SAVE_EVERY == 0:
            print("SAVED", state.global_step, flush=True)
        if state.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def break_store(vault: Path) -> None:
    """Put a file where the vault's folder of data belongs: it can be claimed and read, and takes no checkpoint."""
    (vault / "data").write_bytes(b"")


def trainer(output: str, vault: str, kill_at: int, width: int, bandwidth: str | None, outage: bool) -> None:
    """A Trainer. ``kill_at``: the step that it doesn't begin any more; 0: only say where it starts."""
    torch.set_num_threads(1)
    Trainer(
        model=kit.model(vocab=64 * width),
        args=kit.arguments(Path(output), max_steps=STEPS, save_steps=SAVE_EVERY),
        train_dataset=kit.Tokens(),
        callbacks=[_Script(kill_at, Path(vault), outage)],
        resume=Settings(vault=vault, bandwidth=bandwidth),
    ).train()


def loop(output: str, vault: str, kill_at: int, width: int, bandwidth: str | None, outage: bool) -> None:
    """A loop with a Checkpointer; the same arguments."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = 32 * width
    model = torch.nn.Linear(size, size)
    optimizer = torch.optim.AdamW(model.parameters())
    ckpt = Checkpointer(
        Settings(vault=vault, bandwidth=bandwidth),
        model=model,
        optimizer=optimizer,
        save_every=f"{SAVE_EVERY} steps",
        output_dir=output,
    )
    start = ckpt.resume()
    print("START", start, flush=True)
    if kill_at == 0:
        os._exit(0)
    if outage:
        break_store(Path(vault))
    for step in range(start, STEPS):
        loss = model(torch.ones(2, size)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ckpt.step(loss=loss)
        if (step + 1) % SAVE_EVERY == 0:
            print("SAVED", step + 1, flush=True)
        if step + 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
