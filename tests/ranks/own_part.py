"""One rank of a training whose callback holds state of its own that no file of the Trainer's has."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import torch
import transformers

from tests.kit.inside import listen
from tests.ranks.train_ranks import Journal, Tokens, arguments, model
from tests.trainer.kit import steps_of, wait_for
from vaultlayer_hf import Settings, resumable

_kept: list[Any] = []
"""What must not be freed: behind the end of its process group gloo may wait for ever for a rank that has ended."""


class Counts(transformers.TrainerCallback):
    """Counts steps, averages their numbers and draws, on each rank; notes what it has ahead of each step."""

    def __init__(self, notes: Journal, vault: str, dies: int) -> None:
        self.steps, self.average, self.share = 0, torch.zeros(1), 0.0
        self.draws = random.Random(os.environ["RANK"])
        self._notes, self._vault, self._dies = notes, vault, dies

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        self._notes.note(at=step, steps=self.steps, average=self.average.item())
        if step and step % args.save_steps == 0:
            wait_for(lambda: step in steps_of(self._vault))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        self.average = (self.average + state.global_step) / 2
        self.share += self.draws.random()
        if state.global_step == self._dies:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    output: str,
    journal: str,
    result: str,
    vault: str,
    kind: str = "ddp",
    settings: dict[str, Any] | None = None,
    dies: int = 0,
    **more: Any,
) -> None:
    """Train this rank; ``dies``: SIGKILL at the end of this step."""
    torch.set_num_threads(1)
    notes = Journal(journal)
    trainer = resumable(transformers.Trainer)(
        model=model(),
        args=arguments(kind, output, **more),
        train_dataset=Tokens(),
        callbacks=[Counts(notes, vault, dies)],
        resume=Settings(vault=vault, **(settings or {})),
    )
    _kept.append(trainer)
    listen(trainer, lambda event: notes.note(event=event.kind, message=event.message))
    trainer.train()
    torch.distributed.destroy_process_group()
