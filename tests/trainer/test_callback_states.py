"""Callbacks that count (early stopping's patience) go on counting where the checkpoint was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from tests.trainer.kit import STEPS, Boom, FailAt, Patient, Recorder, trainer, weights
from tests.trainer.test_best import best_run
from vaultlayer_hf.trainer.callback_states import restore_callback_states


class Counter(TrainerCallback, ExportableState):  # type: ignore[misc]
    """A stateful callback of a user's own."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"count": self.count}}


def ending(run: Any) -> tuple[int, str, str]:
    """Train, and return the step at which that ended, the best checkpoint's name and the weights."""
    run.train()
    return run.state.global_step, Path(run.state.best_model_checkpoint).name, weights(run.model)


@pytest.mark.parametrize("by_stock", [False, True], ids=["by us", "by the Trainer's own argument"])
def test_early_stopping_goes_on_in_its_patience(by_stock: bool, tmp_path: Path) -> None:
    """A run broken off in its patience ends at the same step, with the same best checkpoint, as an unbroken one."""
    more: dict[str, Any] = {"max_steps": 12, "restore_callback_states_from_checkpoint": by_stock}
    unbroken = ending(best_run(tmp_path / "u", callbacks=[EarlyStoppingCallback(2)], resume=None, **more))
    assert unbroken[:2] == (6, "checkpoint-2")
    vault = tmp_path / "vault"
    callbacks = [EarlyStoppingCallback(2), FailAt(5), Patient(vault)]
    with pytest.raises(Boom):
        best_run(tmp_path / "a", callbacks=callbacks, resume=vault, **more).train()
    again = best_run(tmp_path / "b", callbacks=[EarlyStoppingCallback(2)], resume=vault, **more)
    assert ending(again) == unbroken


def test_several_of_one_class_are_restored_in_their_order() -> None:
    """Of a list that grew at each save the last states count, and the objects stay the same."""
    first, second = Counter(), Counter()
    said: list[str] = []
    states = [Counter(count).state() for count in (1, 2, 3, 4)]
    restore_callback_states([first, TrainerCallback(), second], {"Counter": states}, said.append)
    assert (first.count, second.count, said) == (3, 4, [])


@pytest.mark.parametrize("saved", [Counter(5).state(), [Counter(count).state() for count in (1, 2, 3)]])
def test_another_number_of_a_class_is_said(saved: Any) -> None:
    """Which state belongs to which callback can't be told then: none is put back, and a line says so."""
    both = [Counter(), Counter()]
    said: list[str] = []
    restore_callback_states(both, {"Counter": saved}, said.append)
    assert [one.count for one in both] == [0, 0]
    assert len(said) == 1
    assert "another number of Counter" in said[0]


def test_an_attribute_that_is_gone_is_said() -> None:
    """A callback of another version takes what it still has, and a line names the rest."""
    counter = Counter()
    said: list[str] = []
    saved = {"Counter": {"args": {}, "attributes": {"count": 7, "old": 1}}}
    restore_callback_states([counter], saved, said.append)
    assert counter.count == 7
    assert not hasattr(counter, "old")
    assert len(said) == 1
    assert said[0].endswith("begins anew: old")


def test_a_run_with_other_callbacks_goes_on_and_says_so(tmp_path: Path) -> None:
    """A resume with one of two stateful callbacks trains to the end, and a warning says that it begins anew."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        trainer(
            tmp_path / "a", callbacks=[Counter(1), Counter(2), FailAt(5), Patient(vault)], resume=vault
        ).train()
    counter = Counter()
    again = trainer(tmp_path / "b", callbacks=[counter], resume=vault)
    recorder = Recorder(again)
    again.train()
    assert (again.state.global_step, counter.count) == (STEPS, 0)
    assert any("another number of Counter" in event.message for event in recorder.of("notice"))
