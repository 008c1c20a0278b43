"""A Trainer that goes on where its schedule is at its end is told so; one whose schedule goes on isn't."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import get_linear_schedule_with_warmup

from tests.trainer.kit import STEPS, Recorder, model, trainer


def _said(tmp_path: Path, steps: int, *, own: int | None) -> list[str]:
    """Train up to a step, with a schedule of the script's own of ``own`` steps; return what is said of a rate of 0."""
    base = model()
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, own) if own is not None else None
    given = {"optimizers": (optimizer, schedule)} if own is not None else {}
    run = trainer(tmp_path / "o", model=base, resume=tmp_path / "v", max_steps=steps, save_steps=4, **given)
    record = Recorder(run)
    run.train()
    assert run.state.global_step == steps
    return [event.message for event in record.events if "learning rate is 0" in event.message]


def test_a_schedule_at_its_end_is_said(tmp_path: Path) -> None:
    """A schedule that the script has made for fewer steps than are asked for now: one line says so."""
    assert _said(tmp_path, STEPS, own=STEPS) == []
    (words,) = _said(tmp_path, STEPS + 4, own=STEPS)
    assert f"the schedule LambdaLR is at its end, at its step {STEPS + 1}: give it as many steps" in words


def test_the_trainers_own_schedule_goes_on(tmp_path: Path) -> None:
    """It is made for the steps of now: the rate is 0 at the first of them, which the checkpoint brings, and rises."""
    assert _said(tmp_path, STEPS, own=None) == []
    assert _said(tmp_path, STEPS + 4, own=None) == []
