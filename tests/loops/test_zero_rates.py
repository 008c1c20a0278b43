"""A loop that goes on beyond the end of its schedule is told so; one whose rate rises again isn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, PolynomialLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset

from tests.kit.inside import listen
from vaultlayer_hf import Checkpointer

SHORT, LONG = 4, 10


def _linear(steps: int) -> Any:
    return lambda optimizer: LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))


def _poly(optimizer: Any) -> Any:
    return PolynomialLR(optimizer, total_iters=SHORT)


def _warm_up_and_down(optimizer: Any) -> Any:
    parts = [LinearLR(optimizer, 0.5, total_iters=1), PolynomialLR(optimizer, total_iters=SHORT - 1)]
    return SequentialLR(optimizer, parts, milestones=[1])


def _at_zero(optimizer: Any) -> Any:
    return LambdaLR(optimizer, lambda step: 0.0)


def _train(tmp_path: Path, total: int, schedule: Any, *, every: int = 1) -> list[str]:
    """Train up to a step, behind the steps that are done; return what is said of a rate of 0.

    ``every``: how many steps the schedule's are apart.
    """
    model = torch.nn.Linear(1, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = schedule(optimizer)
    loader: Any = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=1)
    options = {"output_dir": tmp_path / "o", "save_every": "none"}
    ckpt = Checkpointer(tmp_path / "v", model=model, optimizer=optimizer, scheduler=scheduler, **options)
    said: list[str] = []
    listen(ckpt, lambda event: said.append(event.message))
    ckpt.resume()
    for step, (batch,) in ckpt.steps(loader, total=total):
        model(batch).sum().backward()
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
        optimizer.zero_grad()
        ckpt.step()
    ckpt.finish()
    return [text for text in said if "learning rate is 0" in text]


def test_a_schedule_at_its_end_is_said(tmp_path: Path) -> None:
    """More steps than the schedule has change no weight: one line says so, and what to do."""
    assert _train(tmp_path, SHORT, _linear(SHORT)) == []
    (words,) = _train(tmp_path, LONG, _linear(SHORT))
    assert "the schedule LambdaLR is at its end, at its step 5: give it as many steps as are trained" in words
    assert "fork" not in words


def test_a_schedule_that_ends_later_on_is_said(tmp_path: Path) -> None:
    """A start that goes on with more steps than its schedule has, and comes to that end on its way."""
    assert _train(tmp_path, 2, _linear(SHORT)) == []
    (words,) = _train(tmp_path, LONG, _linear(SHORT))
    assert f"at its end, at its step {SHORT}: give it" in words


def test_a_schedule_that_ends_with_the_training_is_not_said(tmp_path: Path) -> None:
    """The rate 0 behind the last step of all is that of each linear schedule."""
    assert _train(tmp_path, 2, _linear(SHORT)) == []
    assert _train(tmp_path, SHORT, _linear(SHORT)) == []


@pytest.mark.parametrize("schedule", [_poly, _warm_up_and_down])
def test_a_schedule_whose_numbers_are_the_checkpoints_needs_a_fork(tmp_path: Path, schedule: Any) -> None:
    """What is said to do is what helps: another ``total_iters`` wouldn't, as the checkpoint's holds."""
    assert _train(tmp_path, SHORT, schedule) == []
    (words,) = _train(tmp_path, LONG, schedule)
    assert "begin a fork" in words


@pytest.mark.parametrize(
    ("then", "now", "every"),
    [
        pytest.param(_linear(SHORT), _linear(LONG * 2), 1, id="longer"),
        pytest.param(_linear(1), _linear(LONG * 2), SHORT, id="longer, and it moves seldom"),
        pytest.param(lambda one: CosineAnnealingLR(one, SHORT), None, 1, id="rises again"),
        pytest.param(lambda one: LambdaLR(one, lambda step: step / 9), None, LONG * 2, id="warm-up"),
    ],
)
def test_a_rate_that_is_to_rise_is_not_said(tmp_path: Path, then: Any, now: Any, every: int) -> None:
    """A longer schedule, one that rises again, and a warm-up that hasn't come to its first step aren't at an end."""
    _train(tmp_path, SHORT, then, every=every)
    assert _train(tmp_path, LONG, now or then, every=every) == []


def test_a_schedule_of_epochs_at_its_end_is_said(tmp_path: Path) -> None:
    """One that doesn't move for a while is at its end where its rate has been 0 for that long."""
    assert _train(tmp_path, SHORT, _linear(1), every=SHORT) == []
    assert len(_train(tmp_path, SHORT + 150, _linear(1), every=SHORT + 200)) == 1


def test_a_start_at_step_0_is_told_nothing(tmp_path: Path) -> None:
    """A rate that is 0 from the begin on is the script's own."""
    assert _train(tmp_path, LONG, _at_zero) == []
