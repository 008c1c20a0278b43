"""Parameters, buffers and optimizer state that no checkpoint holds are said at a save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.kit import Do, Recorder, model, trainer
from vaultlayer_hf import Settings, Trainer


class Carried(Trainer):
    """The same, and the head is carried beside the model."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        head = torch.nn.Linear(16, 1)
        self.vault.run.added.add("head", head)
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), *head.parameters()], lr=0.01)
        return self.optimizer


class Headed(Trainer):
    """A Trainer whose loss has a head of its own."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        head = torch.nn.Linear(16, 1)
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), *head.parameters()], lr=0.01)
        return self.optimizer


@pytest.mark.parametrize(("cls", "said"), [(Headed, 1), (Carried, 0), (Trainer, 0)])
def test_parameters_outside_the_model_are_said(cls: Any, said: int, tmp_path: Path) -> None:
    """A head beside the model is said once, with the fix; a Trainer as it comes is not spoken of."""
    run = trainer(tmp_path / "a", cls=cls, resume=tmp_path / "vault")
    seen = Recorder(run)
    run.train()
    found = [event.message for event in seen.of("inexact") if "that the model doesn't have" in event.message]
    assert len(found) == said
    assert all("trains 2 parameter(s) (17 values)" in message for message in found)


class Weighted(Carried):
    """The head has a part in the loss, and nobody clears its gradients."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        head = self.optimizer.param_groups[0]["params"][-1]
        return super().compute_loss(*args, **kwargs) + head.pow(2).sum()


def test_gradients_that_nobody_clears_are_said(tmp_path: Path) -> None:
    """The Trainer clears the gradients of its model alone: those of a head beside it add up, and aren't carried."""
    run = trainer(tmp_path / "a", cls=Weighted, resume=tmp_path / "vault", max_steps=4)
    seen = Recorder(run)
    run.train()
    assert [
        "1 parameter(s) outside the model have gradients" in one.message for one in seen.of("inexact")
    ] == [True]


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_that_is_not_saved_is_said(persistent: bool, tmp_path: Path) -> None:
    """With exact_data="off" a queue that no checkpoint holds is named once; a saved one and tables are not."""
    moving = model()
    moving.register_buffer("queue", torch.zeros(4), persistent=persistent)
    moving.register_buffer("late", torch.zeros(2), persistent=False)  # a table that is made at the first pass

    def move(_: Any) -> None:
        moving.queue.add_(1)
        moving.late.fill_(7)

    off = Settings(vault=str(tmp_path / "vault"), exact_data="off")
    run = trainer(tmp_path / "a", model=moving, resume=off, max_steps=6, callbacks=[Do(on_step_end=move)])
    seen = Recorder(run)
    run.train()
    found = [event.message for event in seen.of("inexact") if "persistent=False" in event.message]
    assert [message.startswith("queue: these buffers") for message in found] == [True] * (not persistent)


class Layerwise(Trainer):
    """Steps an optimizer for each parameter as soon as its gradient is there, as layerwise optimizers do."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        every = {one: torch.optim.AdamW([one], lr=0.01) for one in self.model.parameters()}

        def step(parameter: Any) -> None:
            every[parameter].step()
            every[parameter].zero_grad()

        for one in every:
            one.register_post_accumulate_grad_hook(step)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        return self.optimizer


def test_an_optimizers_state_in_hooks_is_said(tmp_path: Path) -> None:
    """What steps within the backward pass keeps its state where no checkpoint looks: said once, at the first save."""
    run = trainer(tmp_path / "a", cls=Layerwise, resume=tmp_path / "vault", max_grad_norm=0.0, max_steps=4)
    seen = Recorder(run)
    run.train()
    found = [event.message for event in seen.of("inexact") if "step in hooks" in event.message]
    assert len(found) == 1
    assert "optimizer(s) (AdamW)" in found[0]
