"""The values of resume=, and what wins over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.trainer.conftest import Reference
from tests.trainer.kit import STEPS, Boom, FailAt, Patient, Recorder, state_of, steps_of, trainer, weights
from vaultlayer_hf import NoSuchCheckpointError, Settings, SettingsError, Trainer, VaultUriError
from vaultlayer_hf.trainer.trainer import settings_for


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault of a run that failed at step 7 of 8 and holds steps 2, 4 and 6. Tests copy it, or only read it."""
    folder = tmp_path_factory.mktemp("failed") / "vault"
    run = trainer(folder.parent / "out", resume=folder, callbacks=[FailAt(7), Patient(folder)])
    with pytest.raises(Boom):
        run.train()
    assert steps_of(folder) == [2, 4, 6]
    return folder


@pytest.fixture
def copy(vault: Path, tmp_path: Path) -> Path:
    """The vault's own copy for this test."""
    import shutil

    return Path(shutil.copytree(vault, tmp_path / "vault"))


@pytest.mark.parametrize(
    "form", ["path", "Path", "file", "True", "Settings", "Settings from variable", "@step"]
)
def test_each_form_goes_on(
    form: str, copy: Path, tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path, a file:// URI, URI@step, True with VAULTLAYER_VAULT, and Settings all go on, to the same weights."""
    if form in ("True", "Settings from variable"):
        monkeypatch.setenv("VAULTLAYER_VAULT", str(copy))
    resume: Any = {
        "path": str(copy),
        "Path": copy,
        "file": copy.as_uri(),
        "True": True,
        "Settings": Settings(vault=str(copy)),
        "Settings from variable": Settings(),
        "@step": f"{copy.as_uri()}@4",
    }[form]
    run = trainer(tmp_path / "out", resume=resume)
    run.train()
    assert weights(run.model) == reference.weights
    assert (tmp_path / "out" / "checkpoint-4").exists() == (form == "@step")
    assert state_of(copy).finished == STEPS


def test_an_older_step_puts_the_later_ones_off_the_way(copy: Path, tmp_path: Path) -> None:
    """After URI@4 has trained on, the newest checkpoint is the new way's, and not the old way's higher step."""
    run = trainer(tmp_path / "out", resume=f"{copy}@4", max_steps=5, save_steps=5)
    run.train()
    assert state_of(copy).newest is not None
    assert state_of(copy).newest.step == 5  # type: ignore[union-attr]
    assert [(item.step, item.left_behind) for item in state_of(copy).commits] == [
        (2, False),
        (4, False),
        (6, True),
        (5, False),
    ]


def test_a_step_that_is_not_there(copy: Path, tmp_path: Path) -> None:
    """URI@<step> without such a checkpoint is an error that lists what there is, before anything is claimed."""
    before = state_of(copy).token
    with pytest.raises(NoSuchCheckpointError, match="step 5; it has: 2, 4, 6"):
        trainer(tmp_path / "out", resume=f"{copy}@5").train()
    assert state_of(copy).token == before


@pytest.mark.parametrize("off", [None, False])
def test_off(off: Any, tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """resume=None and False give the Trainer as it is, whatever VAULTLAYER_VAULT says."""
    monkeypatch.setenv("VAULTLAYER_VAULT", str(tmp_path / "vault"))
    run = trainer(tmp_path / "out", resume=off)
    run.train()
    assert weights(run.model) == reference.weights
    assert not (tmp_path / "vault").exists()
    assert not (tmp_path / "out" / "_vaultlayer").exists()


def test_true_without_the_variable() -> None:
    """resume=True without VAULTLAYER_VAULT says which variable is missing, when the Trainer is made."""
    with pytest.raises(SettingsError, match="VAULTLAYER_VAULT names, and that isn't set"):
        settings_for(True)


@pytest.mark.parametrize("value", [1, 0.5, object()])
def test_no_value_for_resume(value: Any) -> None:
    """A value of another type is refused with the list of what can be given."""
    with pytest.raises(SettingsError, match="give a vault's URI, True, Settings, None or False"):
        settings_for(value)


def test_a_bad_uri_is_refused_when_the_trainer_is_made(tmp_path: Path) -> None:
    """A URI that can't be meant is refused by the constructor, not after hours of data preparation."""
    with pytest.raises(VaultUriError):
        trainer(tmp_path / "out", resume="s3:/bucket/run")


@pytest.mark.parametrize("how", ["path", "keyword path", "True"])
def test_explicit_checkpoint_wins(
    how: str, copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """train(resume_from_checkpoint=…) wins over resume=, the log says so once, and its saves are committed."""
    caplog.set_level("INFO", "vaultlayer_hf")
    local = tmp_path / "out" / "checkpoint-3"
    stock = trainer(tmp_path / "out", cls=transformers.Trainer, max_steps=3, save_steps=3)
    stock.train()
    run = trainer(tmp_path / "out", resume=copy, save_steps=7)
    if how == "path":
        run.train(str(local))
    elif how == "True":
        run.train(resume_from_checkpoint=True)
    else:
        run.train(resume_from_checkpoint=str(local))
    said = [record.getMessage() for record in caplog.records if "wins over resume=" in record.getMessage()]
    assert len(said) == 1
    assert str(copy) in said[0]
    assert not [record for record in caplog.records if "restored" in record.getMessage()]
    # Every 3 steps, as its checkpoint has it. What the vault held as its newest stays, off the way.
    assert [(item.step, item.token, item.left_behind) for item in state_of(copy).commits] == [
        (6, 1, True),
        (6, 5, False),
        (8, 5, False),
    ]


def test_explicit_false_is_none(copy: Path, tmp_path: Path) -> None:
    """train(resume_from_checkpoint=False), as scripts pass it on, still goes on from the vault."""
    run = trainer(tmp_path / "out", resume=copy)
    assert run.train(resume_from_checkpoint=False).global_step == STEPS
    assert (tmp_path / "out" / "checkpoint-6").exists()


def test_goes_on_from_s3(tmp_path: Path, reference: Reference, s3_uri: str) -> None:
    """resume="s3://…" starts fresh, fails, and goes on from an emptied disk to the same weights."""
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=s3_uri, callbacks=[FailAt(5)]).train()
    run = trainer(tmp_path / "b", resume=s3_uri)
    record = Recorder(run)
    run.train()
    assert record.kinds()[:3] == ["notice", "claim", "restore"]
    assert weights(run.model) == reference.weights


def test_signature_of_the_exported_trainer() -> None:
    """vaultlayer_hf.Trainer is a transformers.Trainer whose one more argument is resume."""
    import inspect

    ours, stock = inspect.signature(Trainer), inspect.signature(transformers.Trainer)
    assert set(ours.parameters) - set(stock.parameters) == {"resume"}
    assert ours.parameters["resume"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(Trainer.train) == inspect.signature(transformers.Trainer.train)
