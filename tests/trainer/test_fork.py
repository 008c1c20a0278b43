"""A Trainer's run that begins as a fork of another one's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from tests.trainer.kit import STEPS, Boom, Do, FailAt, Patient, Recorder, steps_of, trainer, wait_for, weights
from tests.trainer.test_best import best_run
from tests.vault.vaults import tree
from vaultlayer_hf import Settings

NEW_FOLDERS = "logging_dir" not in TrainingArguments.__dataclass_fields__


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The vault of a whole run of the common schedule."""
    vault = tmp_path / "origin"
    run = trainer(
        tmp_path / "first", resume=Settings(vault=str(vault), keep_last=None), callbacks=[Patient(vault)]
    )
    run.train()
    return vault


def fork(tmp_path: Path, origin: Path, **more: Any) -> tuple[Any, Recorder]:
    """A trainer that forks the run at step 4, on a vault of its own; and its events."""
    settings = Settings(vault=str(tmp_path / "new"), fork=f"{origin}@4", keep_last=None)
    run = trainer(tmp_path / "second", resume=settings, **more)
    return run, Recorder(run)


def rates(run: Any) -> list[float]:
    """The learning rates that were logged behind step 4."""
    return [
        line["learning_rate"]
        for line in run.state.log_history
        if line["step"] > 4 and "learning_rate" in line
    ]


def test_a_fork_that_changes_nothing_is_the_same_run(tmp_path: Path, origin: Path) -> None:
    """Asked for the same, a fork ends with the weights of the run that it was forked from, which isn't touched."""
    before = tree(origin)
    run, record = fork(tmp_path, origin)
    run.train()
    unbroken = trainer(tmp_path / "whole")
    unbroken.train()
    assert weights(run.model) == weights(unbroken.model)
    assert steps_of(tmp_path / "new") == [6, 8]
    assert tree(origin) == before
    assert not [event for event in record.events if "asked for" in event.message]


def test_a_fork_trains_with_its_own_learning_rate(tmp_path: Path, origin: Path) -> None:
    """Rate, weight decay and schedule are this script's, at the checkpoint's place; that is said, and done."""
    run, record = fork(tmp_path, origin, learning_rate=1e-3, weight_decay=0.25)
    run.train()
    said = "\n".join(event.message for event in record.of("notice"))
    assert "a fork: this script's learning rate, weight decay, betas and schedule hold" in said
    assert "learning_rate: 0.01 in the checkpoint, 0.001 asked for: this start's holds from here on" in said
    plain = trainer(tmp_path / "plain", learning_rate=1e-3)
    plain.train()
    assert rates(run) == rates(plain)
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert run.optimizer.param_groups[1]["weight_decay"] == 0.0, "as the Trainer groups them"


def test_the_second_start_goes_on_by_itself(tmp_path: Path, origin: Path) -> None:
    """The same command, started again, goes on from what the fork has committed, with the fork's own rates."""
    vault = tmp_path / "new"
    patient = Do(on_step_begin=lambda state: state.global_step != 6 or wait_for(lambda: 6 in steps_of(vault)))
    run, _ = fork(tmp_path, origin, learning_rate=1e-3, callbacks=[FailAt(7), patient])
    with pytest.raises(Boom):
        run.train()
    again, record = fork(tmp_path, origin, learning_rate=1e-3)
    again.train()
    assert "checkpoint-6" in record.of("restore")[0].message or record.of("adopt")
    plain = trainer(tmp_path / "plain", learning_rate=1e-3)
    plain.train()
    assert rates(again)[-2:] == rates(plain)[-2:]
    assert again.state.global_step == STEPS


def test_the_best_may_be_of_the_run_that_it_was_forked_from(tmp_path: Path) -> None:
    """Started again on an emptied disk, it loads the other vault's best at its end, and says nothing of a lack."""
    origin = tmp_path / "origin"
    kept = Settings(vault=str(origin), keep_last=None)
    first = best_run(tmp_path / "first", resume=kept, callbacks=[Patient(origin)])
    first.train()
    settings = Settings(vault=str(tmp_path / "new"), fork=f"{origin}@4", keep_last=None)
    patient = Do(
        on_step_begin=lambda state: (
            state.global_step != 6 or wait_for(lambda: 6 in steps_of(tmp_path / "new"))
        )
    )
    with pytest.raises(Boom):
        best_run(tmp_path / "second", resume=settings, callbacks=[FailAt(7), patient]).train()
    again = best_run(tmp_path / "third", resume=settings)
    record = Recorder(again)
    again.train()
    assert "6" in record.of("restore")[0].message
    assert not [one.message for one in record.of("notice") if "best checkpoint" in one.message]
    assert Path(again.state.best_model_checkpoint) == tmp_path / "third" / "checkpoint-2"
    assert weights(again.model) == weights(first.model)


@pytest.mark.parametrize("same_disk", [True, False])
def test_where_a_best_checkpoint_is_that_no_vault_has(same_disk: bool, tmp_path: Path) -> None:
    """A best one that only this disk has is loaded from there; what is said of it is true of this disk."""
    origin, vault = tmp_path / "origin", tmp_path / "new"
    kept = Settings(vault=str(origin), keep_last=None)
    best_run(tmp_path / "first", resume=kept, callbacks=[Patient(origin)]).train()
    patient = Do(on_step_begin=lambda state: state.global_step != 6 or wait_for(lambda: 6 in steps_of(vault)))
    settings = Settings(vault=str(vault), fork=f"{origin}@4", keep_last=None)
    with pytest.raises(Boom):
        best_run(tmp_path / "second", resume=settings, callbacks=[FailAt(7), patient]).train()
    again = best_run(tmp_path / ("second" if same_disk else "third"), resume=str(vault))
    record = Recorder(again)
    again.train()
    (said,) = [one.message for one in record.of("notice") if "best checkpoint" in one.message]
    if same_disk:
        assert "but on this disk alone" in said
        assert Path(again.state.best_model_checkpoint) == tmp_path / "second" / "checkpoint-2"
        saved = type(again.model).from_pretrained(tmp_path / "first" / "checkpoint-2")
        assert weights(again.model) == weights(saved)
    else:
        assert "nor on this disk" in said


def test_the_usual_idiom_begins_the_fork(tmp_path: Path, origin: Path) -> None:
    """``train(resume_from_checkpoint=True)`` means "go on where you can", and a fork is where."""
    run, record = fork(tmp_path, origin)
    run.train(resume_from_checkpoint=True)
    assert any(
        "the fork wins over train(resume_from_checkpoint=True)" in event.message for event in record.events
    )
    assert steps_of(tmp_path / "new") == [6, 8]


def test_the_variable_names_it_too(tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VAULTLAYER_FORK does what ``fork=`` does."""
    monkeypatch.setenv("VAULTLAYER_FORK", f"{origin}@6")
    run = trainer(tmp_path / "second", resume=str(tmp_path / "new"))
    run.train()
    assert steps_of(tmp_path / "new") == [8]


def test_a_fork_is_a_run_of_its_own_in_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that it comes from isn't written to: neither its vault nor its tracker's run."""
    pytest.importorskip("tensorboard")
    more: dict[str, Any] = {"report_to": "tensorboard"}
    named = {} if NEW_FOLDERS else {"logging_dir": str(tmp_path / "mine")}
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "mine"))
    vault = tmp_path / "origin"
    settings = Settings(vault=str(vault), keep_last=None)
    trainer(tmp_path / "first", resume=settings, callbacks=[Patient(vault)], **more, **named).train()
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    before = tree(tmp_path / "mine")
    run, _ = fork(tmp_path, vault, **more)
    run.train()
    assert before
    assert tree(tmp_path / "mine") == before
    assert len(list((tmp_path / "second" / "runs").iterdir())) == 1
