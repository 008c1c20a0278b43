"""The values of resume=, and what wins over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.trainer_utils import get_last_checkpoint

from tests.trainer.conftest import Reference
from tests.trainer.kit import (
    EVERY,
    STEPS,
    Boom,
    Do,
    FailAt,
    Patient,
    Recorder,
    state_of,
    steps_of,
    trainer,
    weights,
)
from vaultlayer_hf import (
    Checkpointer,
    NoSuchCheckpointError,
    Settings,
    SettingsError,
    Trainer,
    VaultLayerCallback,
    VaultUriError,
)
from vaultlayer_hf.trainer.argument import settings_for


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
    with pytest.raises(SettingsError, match="resume=True names no vault, and VAULTLAYER_VAULT isn't set"):
        settings_for(True)


@pytest.mark.parametrize(
    "value", [1, 0.5, object(), {"vault": "s3://bucket/run"}, ["s3://bucket/run"], b"run"]
)
def test_no_value_for_resume(value: Any) -> None:
    """A value of another type is refused with what can be given, wherever a vault is named; it isn't repeated."""
    for take in (settings_for, VaultLayerCallback, Checkpointer):
        with pytest.raises(
            SettingsError, match=f"is of type {type(value).__name__}: give a vault's address"
        ) as error:
            take(value)
        assert "bucket/run" not in str(error.value)


def test_a_bad_uri_is_refused_when_the_trainer_is_made(tmp_path: Path) -> None:
    """A URI that can't be meant is refused by the constructor, not after hours of data preparation."""
    with pytest.raises(VaultUriError):
        trainer(tmp_path / "out", resume="s3:/bucket/run")


def _stopped_at_three(output_dir: Path) -> Path:
    """A checkpoint of step 3 by stock."""
    trainer(output_dir, cls=transformers.Trainer, max_steps=3, save_steps=3).train()
    return output_dir / "checkpoint-3"


@pytest.mark.parametrize("positional", [True, False])
def test_a_folder_elsewhere_wins_once(
    positional: bool, copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint elsewhere wins over the vault, as is said; the same script, started again, goes on from its own."""
    caplog.set_level("INFO", "vaultlayer_hf")
    named = str(_stopped_at_three(tmp_path / "elsewhere"))
    begun: list[int] = []

    def start(*more: Any) -> None:
        callbacks = [Do(on_train_begin=lambda state: begun.append(state.global_step)), Patient(copy), *more]
        run = trainer(tmp_path / "out", resume=copy, callbacks=callbacks)
        if positional:
            run.train(named)
        else:
            run.train(resume_from_checkpoint=named)

    with pytest.raises(Boom):
        start(FailAt(2 * EVERY + 3))
    said = [one.getMessage() for one in caplog.records if "wins over the vault" in one.getMessage()]
    assert len(said) == 1
    assert str(copy) in said[0]
    assert not [one for one in caplog.records if "restored" in one.getMessage()]
    # Every 3 steps, as its checkpoint has it. What the vault held as its newest stays, off the way.
    assert [(one.step, one.left_behind) for one in state_of(copy).commits][-2:] == [(6, True), (6, False)]
    with pytest.raises(Boom):
        start(FailAt(2 * EVERY + 3))
    start()
    assert begun == [3, 6, 6]


def test_a_name_without_a_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    """A word such as "auto", as other libraries take it, is one error, and the vault isn't claimed for it."""
    before = state_of(copy)
    with pytest.raises(
        NoSuchCheckpointError, match=r"'auto'.*names a folder that isn't there: leave the argument"
    ):
        trainer(tmp_path / "out", resume=copy).train(resume_from_checkpoint="auto")
    assert state_of(copy) == before


def test_what_a_folder_elsewhere_lacks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stock resumes in silence from a folder without its optimizer; here it is said."""
    named = _stopped_at_three(tmp_path / "elsewhere")
    (named / "optimizer.pt").unlink()
    run = trainer(tmp_path / "out", resume=tmp_path / "vault")
    assert run.train(resume_from_checkpoint=str(named)).global_step == STEPS
    assert "checkpoint-3 lacks optimizer.pt" in caplog.text


@pytest.mark.parametrize("how", ["True", "last", "torn"])
def test_the_vault_wins_over_this_output_dir(
    how: str, copy: Path, tmp_path: Path, reference: Reference, caplog: pytest.LogCaptureFixture
) -> None:
    """True, and a folder of the run's own output_dir, whole or torn, mean the vault's newest checkpoint."""
    caplog.set_level("INFO", "vaultlayer_hf")
    named = _stopped_at_three(tmp_path / "out")
    if how == "torn":
        (named / "trainer_state.json").unlink()
    run = trainer(tmp_path / "out", resume=copy)
    record = Recorder(run)
    run.train(resume_from_checkpoint=how == "True" or str(named))
    assert record.of("restore")[0].fields["step"] == 6
    assert weights(run.model) == reference.weights
    assert "the vault wins over train(resume_from_checkpoint=" in caplog.text


@pytest.mark.parametrize("name", ["True", "folder"])
def test_an_empty_disk_is_no_error(name: str, copy: Path, tmp_path: Path, reference: Reference) -> None:
    """On a new machine the vault's checkpoint is gone on from, and a vault without one begins at step 0, as is said."""
    explicit = name == "True" or str(tmp_path / "out" / "checkpoint-6")
    run = trainer(tmp_path / "out", resume=copy)
    run.train(resume_from_checkpoint=explicit)
    assert weights(run.model) == reference.weights
    fresh = trainer(tmp_path / "new", resume=tmp_path / "empty")
    record = Recorder(fresh)
    if name == "folder":
        explicit = str(tmp_path / "new" / "checkpoint-6")
    fresh.train(resume_from_checkpoint=explicit)
    assert weights(fresh.model) == reference.weights
    assert any("can't be followed, so the run starts fresh" in event.message for event in record.of("notice"))


@pytest.mark.parametrize(
    ("torn", "claimed"), [("", False), ("", True), ("gone", False), ("gone", True), ("cut", False)]
)
def test_a_vault_without_a_checkpoint_leaves_it_to_the_script(
    torn: str, claimed: bool, tmp_path: Path, reference: Reference, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the vault holds none, the newest whole folder of output_dir is gone on from, and a torn one is named."""
    caplog.set_level("INFO", "vaultlayer_hf")
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        trainer(tmp_path / "out", cls=transformers.Trainer, callbacks=[FailAt(5)]).train()
    if claimed:  # by a run that has committed nothing
        with pytest.raises(Boom):
            trainer(tmp_path / "other", resume=vault, callbacks=[FailAt(1)]).train()
    optimizer = tmp_path / "out" / "checkpoint-4" / "optimizer.pt"
    if torn == "gone":
        optimizer.unlink()
    elif torn == "cut":  # as by a power cut
        optimizer.write_bytes(optimizer.read_bytes()[:1000])
    begun: list[int] = []
    run = trainer(
        tmp_path / "out",
        resume=vault,
        callbacks=[Do(on_train_begin=lambda state: begun.append(state.global_step))],
    )
    run.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "out")))
    assert begun == [2 if torn else 4]
    assert ("checkpoint-4 lacks optimizer.pt" in caplog.text) == (torn == "gone")
    assert ("checkpoint-4: optimizer.pt can't be loaded" in caplog.text) == (torn == "cut")
    assert weights(run.model) == reference.weights
    assert state_of(vault).finished == STEPS


@pytest.mark.parametrize("nothing", [False, ""])
def test_explicit_false_is_none(nothing: Any, copy: Path, tmp_path: Path) -> None:
    """train(resume_from_checkpoint=False), or an option's empty text, still goes on from the vault."""
    run = trainer(tmp_path / "out", resume=copy)
    assert run.train(resume_from_checkpoint=nothing).global_step == STEPS
    assert (tmp_path / "out" / "checkpoint-6").exists()


def test_goes_on_from_s3(tmp_path: Path, reference: Reference, s3_uri: str) -> None:
    """resume="s3://…" starts fresh, fails, and goes on from an emptied disk to the same weights."""
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=s3_uri, callbacks=[FailAt(5)]).train()
    run = trainer(tmp_path / "b", resume=s3_uri)
    record = Recorder(run)
    run.train()
    assert record.kinds()[:2] == ["claim", "restore"]
    assert weights(run.model) == reference.weights


def test_signature_of_the_exported_trainer() -> None:
    """vaultlayer_hf.Trainer is a transformers.Trainer whose one more argument is resume."""
    import inspect

    ours, stock = inspect.signature(Trainer), inspect.signature(transformers.Trainer)
    assert set(ours.parameters) - set(stock.parameters) == {"resume"}
    assert ours.parameters["resume"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(Trainer.train) == inspect.signature(transformers.Trainer.train)


def test_the_output_folder_itself_means_its_newest(tmp_path: Path) -> None:
    """Named as a whole, on an empty disk, it is no choice of a checkpoint: the vault's newest is gone on from."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        trainer(tmp_path / "a", resume=vault, callbacks=[Patient(vault), FailAt(5)]).train()
    (tmp_path / "b").mkdir()
    again = trainer(tmp_path / "b", resume=vault)
    steps: list[int] = []
    again.add_callback(Do(on_step_end=lambda state: steps.append(state.global_step)))
    again.train(resume_from_checkpoint=str(tmp_path / "b"))
    assert steps == [5, 6, 7, 8]


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """A folder elsewhere that is no checkpoint's ends the start, with what to name, ahead of the claim."""
    (tmp_path / "runs").mkdir()
    run = trainer(tmp_path / "o", resume=tmp_path / "vault")
    with pytest.raises(NoSuchCheckpointError, match="without a model's weights"):
        run.train(resume_from_checkpoint=str(tmp_path / "runs"))
    assert not (tmp_path / "vault").exists() or not steps_of(tmp_path / "vault")
