"""Parts of a training that a script exchanges on the way: no checkpoint says which they are, so they are named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, trainer


def half() -> float:
    """Return a weight."""
    return 0.5


def _other_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return outputs["logits"].pow(2).mean()


def _exchange_loss(run: Any) -> None:
    run.compute_loss_func = _other_loss


def _exchange_method(run: Any) -> None:
    compute = run.compute_loss
    run.compute_loss = lambda *args, **kwargs: compute(*args, **kwargs) * 2


def _hook(run: Any) -> None:
    run.model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.5)


def _patch(run: Any) -> None:
    run.model.lm_head.forward = lambda hidden: hidden @ run.model.lm_head.weight.T * 1.5


class Late(TrainerCallback):
    """Is added on the way."""


def _choose_lambda(run: Any) -> None:
    run.mine = lambda: 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_exchange_loss, "Trainer.compute_loss_func"),
        (_exchange_method, "Trainer.compute_loss"),
        (_hook, "the model's hooks and methods"),
        (_patch, "the model's hooks and methods"),
        (lambda run: run.add_callback(Late()), "Trainer's callbacks"),
        (_choose_lambda, "Trainer.mine"),
    ],
)
def test_what_is_exchanged_on_the_way_is_said(
    change: Callable[[Any], None], named: str, tmp_path: Path
) -> None:
    """A loss, a hook, a method or a callback that is there from some step on is named, and at the resume."""
    vault = tmp_path / "vault"
    for fails in (3, 0):
        run = trainer(tmp_path / "a", resume=vault, max_steps=4)
        run.mine = half
        run.add_callback(
            Do(on_step_end=lambda state, run=run: change(run) if state.global_step == 1 else None)
        )
        if fails:
            run.add_callback(FailAt(fails))
            run.add_callback(Patient(vault))
        seen = Recorder(run)
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        said = [event.message for event in seen.of("inexact")]
        assert any(named in message for message in said), said
