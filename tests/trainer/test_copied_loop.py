"""Libraries that run a copy of the Trainer's loop, changed and executed in a module of their own."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers

from tests.kit.inside import listen
from tests.trainer.kit import Boom, FailAt, Patient, Tokens, trainer, weights
from vaultlayer_hf.base.events import Event
from vaultlayer_hf.trainer.data_file import Record, read_record
from vaultlayer_hf.trainer.trainer import resumable


class Augmented(Tokens):
    """Rows of which a token is drawn anew each time, so that a place that is a little off shows."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index].clone()
        row[int(torch.randint(16, ()))] = int(torch.randint(64, ()))
        return {"input_ids": row, "labels": row}


def with_copied_loop(called: str = "skip_first_batches") -> tuple[Any, dict[str, Any]]:
    """Return a Trainer class whose loop is a copy, and the globals of that; it calls accelerate's skip by a name."""
    names = dict(vars(transformers.trainer))
    names[called] = accelerate.skip_first_batches
    methods = {}
    for name, method in vars(transformers.Trainer).items():
        if inspect.isfunction(method) and "skip_first_batches(" in inspect.getsource(method):
            source = textwrap.dedent(inspect.getsource(method)).replace("skip_first_batches(", f"{called}(")
            exec(source, names)
            methods[name] = names[name]
    assert methods
    return type("Quicker", (transformers.Trainer,), methods), names


def broken_and_resumed(cls: Any, folder: Path) -> tuple[str, list[str]]:
    """Break a training off in the middle of an epoch; return the weights of the one that goes on, and what it says."""
    vault, said = folder / "vault", list[str]()
    callbacks = [FailAt(4), Patient(vault)]
    more = {"train_dataset": Augmented(), "save_steps": 3}
    with pytest.raises(Boom):
        trainer(folder / "a", resumable(cls), resume=vault, callbacks=callbacks, **more).train()

    def note(event: Event) -> None:
        if event.kind == "inexact":
            said.append(event.message)

    again = trainer(folder / "b", resumable(cls), resume=vault, **more)
    listen(again, note)
    again.train()
    return weights(again.model), said


@pytest.fixture
def unbroken(tmp_path: Path) -> str:
    """The weights of a stock Trainer that nothing disturbs."""
    run = trainer(tmp_path / "u", transformers.Trainer, train_dataset=Augmented(), save_steps=3)
    run.train()
    return weights(run.model)


def test_a_copied_loop_goes_on_exactly(tmp_path: Path, unbroken: str) -> None:
    """A copy that looks skip_first_batches up in its own module goes on at the same place, and has its own back."""
    cls, names = with_copied_loop()
    found, said = broken_and_resumed(cls, tmp_path)
    assert (found, said) == (unbroken, [])
    assert names["skip_first_batches"] is accelerate.skip_first_batches
    assert transformers.trainer.skip_first_batches is accelerate.skip_first_batches


def test_a_loop_that_leaves_batches_out_in_its_own_way_is_said(tmp_path: Path, unbroken: str) -> None:
    """Nobody asks us where that is: one line says that numbers may differ."""
    found, said = broken_and_resumed(with_copied_loop("leave_out")[0], tmp_path)
    assert found != unbroken
    assert len(said) == 1
    assert "the loop that trains isn't this transformers' own" in said[0]
    record = read_record(tmp_path / "b" / "checkpoint-6", 0)
    assert isinstance(record, Record)
    assert record.position is None, "of where it is nothing is known any more"
    assert "in its own way" in record.why
