"""A value that JSON can't hold ends a save as stock does, and is named: which, of what type, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.trainer.kit import Do, steps_of, trainer
from vaultlayer_hf.run.report import AttemptReport

CASES = {
    "numpy": (numpy.float32(0.5), "numpy.float32, which JSON can't hold. Log value.item()"),
    "array": (numpy.zeros(3), "numpy.ndarray, which JSON can't hold. Log value.tolist()"),
    "tensor": (torch.tensor(0.5), "torch.Tensor, which JSON can't hold. Log value.item()"),
    "nested": ({"macro": numpy.float32(1)}, "numpy.float32"),
    "own": (object(), "builtins.object, which JSON can't hold. Log a number or a text made of it"),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_is_logged_is_named(kind: str, tmp_path: Path) -> None:
    """The save behind it fails with stock's own error, whose note names key, step, type and remedy."""
    value, told = CASES[kind]

    def log(state: Any) -> None:
        if state.global_step == 3:
            run.log({"f1": value, "fine": 1.0})

    run = trainer(tmp_path / "out", resume=tmp_path / "vault", callbacks=[Do(on_step_end=log)])
    with pytest.raises(TypeError, match="JSON serializable") as caught:
        run.train()
    (note,) = caught.value.__notes__
    key = "f1.macro" if kind == "nested" else "f1"
    assert note.startswith(f"trainer_state.json can't be written: {key}, logged at step 3, is a ")
    assert told in note
    assert steps_of(tmp_path / "vault") == [2]


def test_a_loss_with_its_graph_is_named(tmp_path: Path) -> None:
    """A tensor that still hangs on its graph fails otherwise, in a copy; it is named all the same."""

    def log(state: Any) -> None:
        if state.global_step == 1:
            run.log({"mine": (torch.ones(1, requires_grad=True) * 2).sum()})

    run = trainer(tmp_path / "out", resume=tmp_path / "vault", callbacks=[Do(on_step_end=log)])
    with pytest.raises(RuntimeError) as caught:
        run.train()
    assert "mine, logged at step 1, is a torch.Tensor" in caught.value.__notes__[0]


def test_what_json_holds_is_nobodys_fault(tmp_path: Path) -> None:
    """A save that fails for another reason has no such note, and nan, which Python's JSON holds, is fine."""

    def log(state: Any) -> None:
        if state.global_step == 1:
            run.log({"mine": float("nan"), "text": "a", "list": [1, None, True]})

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("another reason")

    run = trainer(tmp_path / "out", resume=tmp_path / "vault", callbacks=[Do(on_step_end=log)])
    run._save_optimizer_and_scheduler = fail
    with pytest.raises(RuntimeError, match="another reason") as caught:
        run.train()
    assert not hasattr(caught.value, "__notes__")


def test_vl_run_is_told_the_note(tmp_path: Path) -> None:
    """What a rank notes of an error for `vl run` has the note, in the line that a person is shown."""
    from vaultlayer_hf.run.journal import read_notes

    report = AttemptReport(str(tmp_path))
    for text in ("Object of type float32 is not JSON serializable", "Only tensors " * 50):
        error = TypeError(text)
        error.add_note("trainer_state.json can't be written: f1 is a numpy.float32")
        report.error(error)
    for noted in read_notes(tmp_path)[0]:
        assert noted["message"].endswith(": trainer_state.json can't be written: f1 is a numpy.float32")
        assert len(noted["message"]) < 200
