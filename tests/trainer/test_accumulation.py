"""Another number of batches a step than when the checkpoint was saved: the reason that is said is the true one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer as Stock
from transformers import TrainerCallback

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, Tokens, state_of, steps_of, trainer
from vaultlayer_hf import VaultLayerCallback


class Accumulates(TrainerCallback):
    """Raises the accumulation at the end of the second step."""

    trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            args.gradient_accumulation_steps = 4
            self.trainer.accelerator.gradient_accumulation_steps = 4


def start(tmp_path: Path, accumulation: int, *callbacks: Any, **more: Any) -> Any:
    """A Trainer whose pass has 10 batches: 5 steps of 2 of these, or 3 of 4."""
    own = [one for one in callbacks if isinstance(one, Accumulates)]
    made = trainer(
        tmp_path / "o",
        resume=str(tmp_path / "v"),
        callbacks=[*callbacks],
        train_dataset=Tokens(20),
        gradient_accumulation_steps=accumulation,
        **{"save_steps": 3, **more},
    )
    for one in own:
        one.trainer = made
    return made


def said(run: Any) -> list[str]:
    """Train, and return what is said of numbers that may differ."""
    log = Recorder(run)
    run.train()
    return [one.message for one in log.of("inexact")]


def test_another_accumulation_that_begins_a_pass_anew(tmp_path: Path) -> None:
    """Where the Trainer takes the step for a pass's end, that is the reason: its loop is its own.

    Of 10 batches it counts 3 steps of 4, and up to 4.51 it counted 2.
    """
    with pytest.raises(Boom):
        start(tmp_path, 2, FailAt(7), Patient(tmp_path / "v"), save_steps=6).train()
    words = said(start(tmp_path, 4))
    assert any("accumulation: 2 then, 4 now" in one for one in words)
    assert any(
        "with gradient_accumulation_steps=4 the Trainer takes step 6 for the end of a pass" in one
        for one in words
    )
    assert not any("isn't this transformers' own" in one for one in words)


def test_an_accumulation_that_a_callback_has_changed(tmp_path: Path) -> None:
    """What the checkpoint was saved with is noted, not what the training began with."""
    with pytest.raises(Boom):
        start(tmp_path, 2, Accumulates(), FailAt(4), Patient(tmp_path / "v")).train()
    words = said(start(tmp_path, 2, Accumulates()))
    assert any("accumulation: 4 then, 2 now" in one for one in words)
    assert not any("isn't this transformers' own" in one for one in words)
    assert not any("changed between the load and the first step" in one for one in words)


@pytest.mark.parametrize(("then", "now", "end"), [(2, 1, 20), (1, 2, 15)], ids=["lowered", "raised"])
def test_epochs_whose_steps_are_others_than_the_trainer_counts(
    then: int, now: int, end: int, tmp_path: Path
) -> None:
    """No more epochs are trained than are asked for; a schedule or an epoch that is left is named at the end.

    That is where the script calls train() by itself: else the Trainer counts this start's steps.
    """
    more: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 3, "save_steps": 10}  # 5 or 10 steps each
    with pytest.raises(Boom):
        start(tmp_path, then, FailAt(11), Patient(tmp_path / "v"), **more).train()
    vault = VaultLayerCallback(str(tmp_path / "v"))
    own = {
        "cls": Stock,
        "callbacks": [vault],
        "train_dataset": Tokens(20),
        "gradient_accumulation_steps": now,
    }
    run = trainer(tmp_path / "o", **own, **more)
    log = Recorder(vault)
    run.train(resume_from_checkpoint=vault.pull())
    words = log.of("inexact")[-1].message
    assert (run.state.global_step, state_of(tmp_path / "v").finished) == (end, end)
    if now == 1:
        assert words.startswith("training ends at step 20 of 30: the 3 epochs that are asked for are trained")
    else:
        assert words.startswith(
            "training ends at step 15, its last, and 2 of the 3 epochs that are asked for"
        )
    assert "(gradient_accumulation_steps: 1, 2)" in words


def test_epochs_that_a_callback_gives_other_steps_are_its_own_doing(tmp_path: Path) -> None:
    """In a run that nobody has changed nothing is said of it."""
    log = Recorder(run := start(tmp_path, 2, Accumulates(), max_steps=-1, num_train_epochs=2))
    run.train()
    assert not log.of("inexact")


def test_epochs_of_fewer_steps_than_counted_end_in_a_checkpoint(tmp_path: Path) -> None:
    """Their last step is saved, so the next start trains nothing; and it says nothing of a metric that there isn't."""
    more: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2, "save_steps": 5}
    first = start(tmp_path, 2, Accumulates(), **more)
    first.train()
    end = first.state.global_step
    assert end < first.state.max_steps
    assert end % 5
    assert (steps_of(tmp_path / "v")[-1], state_of(tmp_path / "v").finished) == (end, end)
    log = Recorder(again := start(tmp_path, 2, **more))
    assert again.train().global_step == end
    words = log.of("finished")[0].message
    assert words.startswith(
        f"this run is already over, at step {end} of 10: no step is trained; ask for more steps"
    )
