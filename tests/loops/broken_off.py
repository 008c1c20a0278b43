"""A training that is broken off behind a step, as by a kill, and gone on with: it ends with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer, Settings


class Died(Exception):
    """The kill."""


class Training:
    """A model with dropout, its optimizer and its Checkpointer, in one process.

    Args:
        folder: of its vault and its output.
        stop: the step of this process behind which it is killed; None: it ends by itself.
        every: saves at each so many steps.
    """

    def __init__(self, folder: Path, stop: int | None = None, every: int = 1) -> None:
        torch.manual_seed(3)
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.7)
        self.ckpt = Checkpointer(
            Settings(vault=str(folder / "vault"), keep_last=None, resume_timeout=2.0),
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            output_dir=folder / "output",
            save_every=every,
        )
        self.seen: list[int] = []
        self.inexact: list[str] = []
        listen(
            self.ckpt, lambda event: self.inexact.append(event.message) if event.kind == "inexact" else None
        )
        self._stop = stop
        self.steps = 0

    def gather(self, batch: torch.Tensor) -> None:
        """Compute the gradients of a batch."""
        self.seen += batch.flatten().tolist()
        self.model(batch.reshape(-1, 1).float() / 10).pow(2).mean().backward()

    def step(self) -> None:
        """Train with the gradients so far."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ckpt.step()
        self.steps += 1
        if self.steps == self._stop:
            self.ckpt.close()
            raise Died

    def learn(self, batches: Iterable[torch.Tensor]) -> None:
        """Train on batches."""
        for batch in batches:
            self.gather(batch)
            self.step()

    def weights(self) -> list[float]:
        """All of them."""
        return torch.cat([value.detach().flatten() for value in self.model.parameters()]).tolist()


Body = Callable[[Training], None]


def train(body: Body, folder: Path, stop: int | None = None, every: int = 1) -> Training:
    """Resume, have ``body`` train, and finish, unless it is killed."""
    training = Training(folder, stop, every)
    training.ckpt.resume()
    try:
        body(training)
    except Died:
        return training
    training.ckpt.finish()
    return training


def differing(body: Body, folder: Path, stops: Iterable[int] | None = None, every: int = 1) -> dict[int, Any]:
    """Return, by the step behind which it was killed, in what a run that goes on differs from an unbroken one.

    ``stops``: these steps; None: each.
    """
    whole = train(body, folder / "whole", every=every)
    found: dict[int, Any] = {}
    for stop in stops if stops is not None else range(1, whole.steps):
        at = folder / f"stop-{stop}"
        first = train(body, at, stop, every)
        assert first.steps == stop
        rest = train(body, at, every=every)
        if rest.weights() != whole.weights() or rest.inexact:
            found[stop] = (first.seen, rest.seen, whole.seen, rest.inexact)
    return found
