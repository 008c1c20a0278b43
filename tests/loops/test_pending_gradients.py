"""A loop whose step() ends each batch and whose updates take several: a save between them holds their gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer
from vaultlayer_hf.base.events import Event, EventKind
from vaultlayer_hf.loops.pending_gradients import PendingGradients
from vaultlayer_hf.state.object_files import read_state

BATCHES, UPDATE = 10, 4


class Training:
    """A model with dropout that is updated every few batches, with accelerate or without."""

    def __init__(self, folder: Path, accelerated: bool = False) -> None:
        torch.manual_seed(0)
        self.model: Any = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.3))
        self.optimizer: Any = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.loader: Any = DataLoader(torch.randn(BATCHES, 3), batch_size=1, shuffle=True)
        self.accelerator: Any = None
        given: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        if accelerated:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=UPDATE)
            self.model, self.optimizer, self.loader = self.accelerator.prepare(
                self.model, self.optimizer, self.loader
            )
            given = {"accelerator": self.accelerator}
        self.ckpt = Checkpointer(str(folder / "vault"), save_every=3, output_dir=folder / "out", **given)

    def run(self, stop: int | None = None) -> None:
        """Two passes; broken off, as by a kill, behind ``stop`` batches."""
        start = self.ckpt.resume()
        for step, batch in self.ckpt.steps(self.loader, start=start, epochs=2):
            if self.accelerator is None:
                self.model(batch).pow(2).mean().backward()
                if (step + 1) % UPDATE == 0:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
            else:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(self.model(batch).pow(2).mean())
                    self.optimizer.step()
                    self.optimizer.zero_grad()
            self.ckpt.step()
            if step + 1 == stop:
                self.ckpt.close()
                return
        self.ckpt.finish()

    def weights(self) -> list[float]:
        """All of them."""
        return torch.cat([value.detach().flatten() for value in self.model.parameters()]).tolist()


@pytest.mark.parametrize("accelerated", [False, True])
def test_a_resume_between_two_batches_of_an_update(tmp_path: Path, accelerated: bool) -> None:
    """Stopped behind 7 batches and behind 16, with updates of 4: it ends as a run that nothing disturbs."""
    whole = Training(tmp_path / "whole", accelerated)
    whole.run()
    for stop in (7, 16, None):  # goes on from 6, and from 15
        broken = Training(tmp_path / "broken", accelerated)
        broken.run(stop)
    assert broken.weights() == whole.weights()


def test_used_gradients_are_not_kept(tmp_path: Path) -> None:
    """Where each batch has its update, gradients are there behind it, and a checkpoint has none of them."""
    training = Training(tmp_path)
    training.ckpt.resume()
    for _ in range(3):
        training.optimizer.zero_grad()
        training.model(torch.ones(1, 3)).sum().backward()
        training.optimizer.step()
        training.ckpt.step()
    training.ckpt.close()
    assert training.model[0].weight.grad is not None
    assert read_state(tmp_path / "out" / "checkpoint-3" / "data_0.pt")["gradients"] == {}


def test_gradients_that_are_zero_stay_so(tmp_path: Path) -> None:
    """``set_to_none=False`` leaves zeros: an optimizer moves what has them by its momentum, and not what has none."""
    training = Training(tmp_path)
    training.ckpt.resume()
    for _ in range(3):
        training.model(torch.ones(1, 3)).sum().backward()
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=False)
        training.ckpt.step()
    training.ckpt.close()
    assert set(read_state(tmp_path / "out" / "checkpoint-3" / "data_0.pt")["gradients"].values()) == {None}
    again = Training(tmp_path)
    assert again.ckpt.resume() == 3
    assert again.model[0].weight.grad.tolist() == torch.zeros(3, 3).tolist()
    again.ckpt.close()


def test_gradients_of_a_broken_step_are_dropped(tmp_path: Path) -> None:
    """The same objects resumed once more, as in a notebook, don't begin with what a step that broke off has left."""
    training = Training(tmp_path)
    training.run(stop=8)
    assert training.ckpt.resume() == 6
    saved = training.model[0].weight.grad.clone()
    training.model(torch.ones(1, 3)).sum().backward()
    training.ckpt.close()
    assert training.ckpt.resume() == 6
    assert torch.equal(training.model[0].weight.grad, saved)
    training.ckpt.close()


def test_zeros_come_back_on_another_number_of_ranks(tmp_path: Path) -> None:
    """They are no gradients of an update under way: they are given back, and nothing is said."""
    training = Training(tmp_path)
    training.ckpt.resume()
    training.model(torch.ones(1, 3)).sum().backward()
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=False)
    gradients = PendingGradients(lambda: [training.optimizer])
    state = gradients.state_dict()
    gradients.clear()
    assert gradients.load_state_dict(state, same=False) == []
    assert training.model[0].weight.grad.tolist() == torch.zeros(3, 3).tolist()
    training.model(torch.ones(1, 3)).sum().backward()
    (said,) = gradients.load_state_dict(gradients.state_dict(), same=False)
    assert "another number of ranks" in said
    training.ckpt.close()


def test_gradients_that_are_not_finite_are_dropped(tmp_path: Path) -> None:
    """Of an update that the loop leaves out, and whose gradients it clears only after step(): which is said."""

    def run(folder: Path, stop: int | None = None) -> tuple[list[float], list[str]]:
        training = Training(folder)
        said: list[Event] = []
        listen(training.ckpt, said.append)
        for step in range(training.ckpt.resume(), 6):
            loss = training.model(torch.full((1, 3), float("nan") if step == 2 else 1.0)).pow(2).mean()
            loss.backward()
            if loss.isfinite():
                training.optimizer.step()
            training.ckpt.step()
            training.optimizer.zero_grad()
            if step + 1 == stop:
                break
        training.ckpt.close()
        return training.weights(), [one.message for one in said if one.kind is EventKind.INEXACT]

    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "broken", 3)
    again, said = run(tmp_path / "broken")
    assert again == whole
    assert ["aren't finite" in one for one in said] == [True]


def test_gradients_made_in_inference_mode(tmp_path: Path) -> None:
    """As evolution strategies make them: they tell no version, and neither a step nor a save asks for it."""
    training = Training(tmp_path)
    training.ckpt.resume()
    for _ in range(3):
        with torch.inference_mode():
            for one in training.model.parameters():
                one.grad = torch.ones_like(one)
        training.optimizer.step()
        training.ckpt.step()
    training.ckpt.close()
    assert read_state(tmp_path / "out" / "checkpoint-3" / "data_0.pt")["gradients"] == {}
