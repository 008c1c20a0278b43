"""One rank of a training that carries state beside its model, or whose weights become nan."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.kit.inside import listen
from tests.ranks.train_ranks import Journal, Tokens, arguments, model
from tests.trainer.kit import steps_of, wait_for, weights
from vaultlayer_hf import Settings, resumable

_kept: list[Any] = []
"""What must not be freed: behind the end of its process group gloo may wait for ever for a rank that has ended."""


class Beside(transformers.TrainerCallback):
    """An average of the weights, the same on all ranks, and a buffer of each rank's own; and what happens at a step."""

    def __init__(self, vault: str | None, dies: int, poison: int) -> None:
        self.average = model()
        self.seen: list[list[float]] = []
        self._vault, self._dies, self._poison = vault, dies, poison

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if self._vault and step and step % args.save_steps == 0:
            wait_for(lambda: step in steps_of(str(self._vault)))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trained = kwargs["model"]
        with torch.no_grad():
            if state.global_step == self._poison:
                next(trained.parameters()).fill_(float("nan"))
            for mine, other in zip(self.average.parameters(), trained.parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)
        self.seen.append([state.global_step, args.process_index, torch.rand(1).item()])
        if state.global_step == self._dies:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    output: str,
    journal: str,
    result: str,
    kind: str = "ddp",
    vault: str | None = None,
    settings: dict[str, Any] | None = None,
    dies: int = 0,
    poison: int = 0,
    **more: Any,
) -> None:
    """Train this rank; ``dies``: SIGKILL at the end of this step; ``poison``: the weights are nan from there on."""
    torch.set_num_threads(1)
    notes = Journal(journal)
    beside = Beside(vault, dies, poison)
    trainer = resumable(transformers.Trainer)(
        model=model(),
        args=arguments(kind, output, **more),
        train_dataset=Tokens(),
        callbacks=[beside],
        resume=Settings(vault=vault, **(settings or {})) if vault else None,
    )
    _kept.append(trainer)
    trainer.vault.add("average", beside.average)
    trainer.vault.add("seen", beside, each_rank=True)
    if vault:
        listen(trainer, lambda event: notes.note(event=event.kind, message=event.message))
    trainer.train()
    found = [weights(trainer.model), weights(beside.average), beside.seen]
    Path(result).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
