"""What resume= leaves as it is: the numbers of a training, what it returns, and what it writes."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.kit.inside import callback_of, listen
from tests.trainer.conftest import Reference
from tests.trainer.kit import STEPS, Boom, Do, FailAt, Patient, Tokens, state_of, trainer, wait_for, weights
from vaultlayer_hf import VaultLayerCallback

TIMES = ("runtime", "per_second")


def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log history without what a clock has measured."""
    return [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in entries]


def test_unbroken_run_is_stock(tmp_path: Path, reference: Reference) -> None:
    """Without a break, weights, losses, metrics and files are stock's, but for one file of ours in each checkpoint."""
    run = trainer(tmp_path / "out", resume=tmp_path / "vault")
    output = run.train()
    assert weights(run.model) == reference.weights
    assert timeless(run.state.log_history) == timeless(reference.history)
    assert set(output.metrics) == set(reference.metrics)
    assert output.metrics["train_loss"] == reference.metrics["train_loss"]
    for step in (2, STEPS):
        ours = json.loads((tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json").read_text())
        stock = json.loads((reference.folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert ours == stock
    names = {path.name for path in (tmp_path / "out" / "checkpoint-8").iterdir()}
    stocks = {path.name for path in (reference.folder / "checkpoint-8").iterdir()}
    assert names == stocks | {"vaultlayer_data_0.pt", "vaultlayer_digests_0.json", "vaultlayer_asked.json"}


def test_resumed_run_logs_as_an_unbroken_one(tmp_path: Path, reference: Reference) -> None:
    """After a break, losses and learning rates in the history are those of an unbroken run, step by step."""
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=tmp_path / "vault", callbacks=[FailAt(5)]).train()
    run = trainer(tmp_path / "b", resume=tmp_path / "vault")
    run.train()
    per_step = [entry for entry in timeless(run.state.log_history) if "loss" in entry]
    assert per_step == [entry for entry in timeless(reference.history) if "loss" in entry]


def test_evaluate_and_train_return_their_own(tmp_path: Path) -> None:
    """The dicts of evaluate() and train() hold nothing of ours."""
    run = trainer(tmp_path / "out", resume=tmp_path / "vault", eval_dataset=Tokens(2), max_steps=2)
    output = run.train()
    assert not [name for name in (*output.metrics, *run.evaluate()) if "vault" in name]
    assert not [name for entry in run.state.log_history for name in entry if "vault" in name]


FIGURES = {
    "vault/stall_seconds",
    "vault/upload_seconds",
    "vault/uploaded_bytes",
    "vault/commits",
    "vault/exposure_seconds",
    "vault/exposure_steps",
}


@pytest.mark.parametrize("alone", [False, True])
def test_figures_reach_tensorboard(alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures stand in the events file that report_to="tensorboard" writes, beside the losses."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))  # from transformers 5.2
    vault = tmp_path / "vault"
    callback = VaultLayerCallback(vault)
    more = {"report_to": "tensorboard"}
    if "logging_dir" in transformers.TrainingArguments.__dataclass_fields__:
        more["logging_dir"] = str(tmp_path / "tb")
    run = (
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[callback, Patient(vault)], **more)
        if alone
        else trainer(tmp_path / "out", resume=vault, callbacks=[Patient(vault)], **more)
    )
    ours = callback if alone else callback_of(run)
    # The log shows a commit a moment before the uploader has taken note of it.
    run.add_callback(Do(on_step_begin=lambda state: wait_for(lambda: ours.session.uploader.wait(0))))
    run.train(resume_from_checkpoint=callback.pull() if alone else None)
    (file,) = (tmp_path / "tb").rglob("events.out.tfevents.*")
    read = EventAccumulator(str(file))
    read.Reload()
    tags = {tag.removeprefix("train/") for tag in read.Tags()["scalars"]}
    assert tags >= FIGURES | {"loss"}
    commits = {event.step: event.value for event in read.Scalars("train/vault/commits")}
    assert commits[STEPS] == 3
    exposed = {event.step: event.value for event in read.Scalars("train/vault/exposure_steps")}
    assert (exposed[1], exposed[7]) == (1, 1)
    sizes = [event.value for event in read.Scalars("train/vault/uploaded_bytes")]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 100_000


def test_a_runs_life_in_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Claim, fresh, the first commit, the last with the count of those between, the end: a line each, our own name."""
    caplog.set_level("INFO", "vaultlayer_hf")
    vault = tmp_path / "vault"
    trainer(tmp_path / "out", resume=vault, callbacks=[Patient(vault)]).train()
    lines = [record for record in caplog.records if record.name.startswith("vaultlayer_hf")]
    told = [
        "claimed by this process (log entry 1)",
        "is empty: the run starts fresh",
        "checkpoint-2 committed",
        "checkpoint-8 committed",
        "run finished at step 8",
    ]
    messages = [record.getMessage() for record in lines]
    assert [text for text, message in zip(told, messages, strict=True) if text in message] == told
    assert "2 committed, 1 deleted as no longer needed" in messages[3]
    assert {record.levelno for record in lines} == {logging.INFO}


def test_a_listener_that_fails_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that listens to events and raises neither ends a training nor an upload."""

    def listener(event: Any) -> None:
        raise RuntimeError("the listener's own")

    run = trainer(tmp_path / "out", resume=tmp_path / "vault", max_steps=2)
    listen(run, listener)
    run.train()
    assert state_of(tmp_path / "vault").finished == 2
    assert "a listener to events failed" in caplog.text


def test_copied_out_checkpoint_works_in_stock(tmp_path: Path, reference: Reference) -> None:
    """A checkpoint folder copied out of the vault, with our notes, is resumed by stock transformers, bit-identical."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[FailAt(5), Patient(vault)]).train()
    copied = tmp_path / "b" / "checkpoint-4"
    copied.parent.mkdir()
    subprocess.run(["cp", "-r", str(vault / "data" / "1" / "checkpoint-4"), str(copied)], check=True)
    assert (copied / ".vault" / "manifest.json").is_file()
    run = trainer(tmp_path / "b", cls=transformers.Trainer)
    run.train(resume_from_checkpoint=True)
    assert weights(run.model) == reference.weights
