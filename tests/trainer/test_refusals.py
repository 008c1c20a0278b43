"""What is refused, before anything is loaded: another model, torn and incomplete checkpoints, a vault out of reach."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.servers import SeaweedServer
from tests.trainer.conftest import Reference
from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, model, state_of, steps_of, trainer, weights
from vaultlayer_hf import (
    Checkpointer,
    CorruptError,
    FencedError,
    NoUsableCheckpointError,
    Settings,
    SettingsError,
    VaultLayerCallback,
    VaultUnreachableError,
    WrongModelError,
)
from vaultlayer_hf.trainer.layout import missing_files


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault of a run that failed at step 7 and holds steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("refusals")
    run = trainer(folder / "out", resume=folder / "vault", callbacks=[FailAt(7), Patient(folder / "vault")])
    with pytest.raises(Boom):
        run.train()
    return folder / "vault"


@pytest.fixture
def vault(failed: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(failed, tmp_path / "vault"))


def content(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


OTHERS: dict[str, Any] = {
    "another shape": lambda: model(hidden=32),
    "another layer": lambda: model(layers=2),
    "another dtype": lambda: model().to(torch.bfloat16),
    "other names": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    ),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("alone", [False, True])
def test_another_model(other: str, alone: bool, vault: Path, tmp_path: Path) -> None:
    """Another model's vault is refused with the first differences; nothing is claimed, loaded or written."""
    before, wrong = content(vault), OTHERS[other]()
    digest = weights(wrong)
    if alone:
        callback = VaultLayerCallback(vault)
        trainer(tmp_path / "out", cls=transformers.Trainer, model=wrong, callbacks=[callback])
        with pytest.raises(WrongModelError, match="belongs to another model"):
            callback.pull()
    else:
        with pytest.raises(WrongModelError, match="belongs to another model"):
            trainer(tmp_path / "out", model=wrong, resume=vault).train()
    assert content(vault) == before
    assert weights(wrong) == digest
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_right_run_is_not_fenced_by_the_wrong_model(tmp_path: Path, reference: Reference) -> None:
    """While a run trains, a start with another model on its vault is refused and takes nothing from it."""
    vault = tmp_path / "vault"
    refused: list[bool] = []

    def intrude(state: Any) -> None:
        if state.global_step == 4:
            # As a process of its own, it leaves our random numbers alone.
            with torch.random.fork_rng(), pytest.raises(WrongModelError):
                trainer(tmp_path / "other", model=model(hidden=32), resume=vault).train()
            refused.append(True)

    run = trainer(tmp_path / "out", resume=vault, callbacks=[Patient(vault), Do(on_step_end=intrude)])
    run.train()
    assert refused == [True]
    assert state_of(vault).token == 1
    assert steps_of(vault) == [4, 6, 8]
    assert weights(run.model) == reference.weights


def test_model_that_is_changed_after_the_trainer_was_made(vault: Path, tmp_path: Path) -> None:
    """What counts is the model when train() is called, not when the Trainer was made."""
    run = trainer(tmp_path / "out", resume=vault)
    run.model = model(hidden=32)
    with pytest.raises(WrongModelError):
        run.train()


def take_over(vault: Path, output_dir: Path) -> None:
    """Claim a vault as another process would."""
    other = VaultLayerCallback(vault)
    trainer(output_dir, cls=transformers.Trainer, callbacks=[other])
    other.pull()
    other.close()


def test_second_writer_fences_the_first(tmp_path: Path) -> None:
    """A run whose vault another process takes ends with FencedError at its next step, and says it once."""
    vault = tmp_path / "vault"

    def take(state: Any) -> None:
        if state.global_step == 3:
            take_over(vault, tmp_path / "other")

    run = trainer(tmp_path / "out", resume=vault, callbacks=[Do(on_step_end=take)], max_steps=200)
    record = Recorder(run)
    run.add_callback(Do(on_step_begin=lambda _: threading.Event().wait(0.05)))
    with pytest.raises(FencedError, match="another process claimed this vault"):
        run.train()
    assert len(record.of("fenced")) == 1
    assert run.state.global_step < 200
    with pytest.raises(FencedError, match="took this vault from this Trainer"):
        run.train()  # again and again: a loop that retries must not take it back


def test_fenced_and_told_to_continue(tmp_path: Path, reference: Reference) -> None:
    """With on_fenced="continue" a fenced run trains on to its end without the vault."""
    vault = tmp_path / "vault"

    def take(state: Any) -> None:
        if state.global_step == 2:
            with torch.random.fork_rng():
                take_over(vault, tmp_path / "other")

    settings = Settings(vault=str(vault), on_fenced="continue")
    run = trainer(tmp_path / "out", resume=settings, callbacks=[Do(on_step_begin=take)])
    record = Recorder(run)
    run.train()
    assert weights(run.model) == reference.weights
    assert [event.message for event in record.of("fenced")][-1].startswith("training goes on without a vault")
    assert steps_of(vault) in ([], [2])
    assert state_of(vault).finished is None


LOST = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors"]


@pytest.mark.parametrize("lost", LOST)
def test_an_incomplete_save_is_not_committed(lost: str, tmp_path: Path) -> None:
    """A checkpoint that lacks a file of a faithful resume is abandoned, by name; training goes on."""
    vault, out = tmp_path / "vault", tmp_path / "out"

    def lose(state: Any) -> None:
        if state.global_step == 4:
            (out / "checkpoint-4" / lost).unlink()

    run = trainer(out, resume=vault, max_steps=4)
    run.add_callback(Do(on_save=lose))
    record = Recorder(run)
    run.train()
    assert steps_of(vault) == [2]
    what = "weights" if lost.startswith("model") else lost
    assert what in record.of("abandon")[0].fields["reason"]


def test_only_models_were_saved(tmp_path: Path) -> None:
    """save_only_model is warned about at the start, and its checkpoints are refused by a restart, by name."""
    vault = tmp_path / "vault"
    run = trainer(tmp_path / "a", resume=vault, save_only_model=True)
    record = Recorder(run)
    run.train()
    assert any("save_only_model=True" in event.message for event in record.of("notice"))
    assert steps_of(vault)[-1] == 8
    with pytest.raises(NoUsableCheckpointError, match=r"optimizer\.pt, scheduler\.pt, rng_state\.pth"):
        trainer(tmp_path / "b", resume=vault).train()


def test_nothing_is_saved(tmp_path: Path) -> None:
    """save_strategy="no" is warned about at the start: the vault would stay empty."""
    run = trainer(tmp_path / "a", resume=tmp_path / "vault", save_strategy="no")
    record = Recorder(run)
    run.train()
    assert any("save_strategy='no'" in event.message for event in record.of("notice"))


def damage(vault: Path, step: int) -> None:
    """Flip a bit of a checkpoint's weights."""
    path = next(vault.glob(f"data/*/checkpoint-{step}/model.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_walks_back_from_damage(vault: Path, tmp_path: Path, reference: Reference) -> None:
    """A damaged checkpoint is told with its reason, the one before is used, and the run ends the same."""
    damage(vault, 6)
    run = trainer(tmp_path / "out", resume=vault)
    record = Recorder(run)
    run.train()
    (event,) = record.of("walk-back")
    assert "checkpoint-6" in event.message
    assert "digest" in event.fields["reason"]
    assert record.of("restore")[0].fields["step"] == 4
    assert weights(run.model) == reference.weights


def test_nothing_usable(vault: Path, tmp_path: Path) -> None:
    """Where no commit verifies, an error lists each reason and what to do; never a start at step 0."""
    for step in (2, 4, 6):
        damage(vault, step)
    run = trainer(tmp_path / "out", resume=vault)
    with pytest.raises(NoUsableCheckpointError, match="vl verify") as caught:
        run.train()
    assert str(caught.value).count("digest") == 3
    assert run.state.global_step == 0
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_empty_vault_is_said(tmp_path: Path) -> None:
    """An empty vault starts fresh, and says so."""
    run = trainer(tmp_path / "out", resume=tmp_path / "vault", max_steps=2)
    record = Recorder(run)
    run.train()
    assert "is empty: the run starts fresh" in record.of("fresh")[0].message


def test_checkpoints_from_before_the_vault_are_named(tmp_path: Path) -> None:
    """Local checkpoints that an empty vault doesn't know are named, with the way to go on from them."""
    trainer(tmp_path / "out", cls=transformers.Trainer, max_steps=4).train()
    run = trainer(tmp_path / "out", resume=tmp_path / "vault", max_steps=2)
    record = Recorder(run)
    run.train()
    said = [event.message for event in record.of("notice") if "checkpoint-4" in event.message]
    assert len(said) == 1
    assert "train(resume_from_checkpoint=…)" in said[0]


def test_vault_out_of_reach(tmp_path: Path, s3_server: SeaweedServer, s3_uri: str) -> None:
    """A vault that can't be reached is a typed error that says what was tried and what to do; no step is trained."""
    settings = Settings(vault=s3_uri, resume_timeout=0.5)
    run = trainer(tmp_path / "out", resume=settings)
    s3_server.stop()
    with pytest.raises(VaultUnreachableError, match="a start at step 0 could throw a run away") as caught:
        run.train()
    assert s3_uri in str(caught.value)
    assert s3_server.secret_key not in str(caught.value)
    assert run.state.global_step == 0
    s3_server.start()
    assert run.train().global_step == 8  # a failed start isn't a training


def test_vault_that_is_no_folder(tmp_path: Path) -> None:
    """A path that is a file is an error that names it, and no step is trained."""
    (tmp_path / "vault").write_text("a file")
    run = trainer(tmp_path / "out", resume=tmp_path / "vault")
    with pytest.raises((VaultUnreachableError, SettingsError), match="vault"):
        run.train()
    assert run.state.global_step == 0


def test_a_damaged_log_is_no_empty_vault(vault: Path, tmp_path: Path) -> None:
    """A vault whose log can't be read is an error, not an empty vault."""
    for path in (vault / "log").iterdir():
        path.write_bytes(b"{}")
    with pytest.raises(CorruptError, match="log"):
        trainer(tmp_path / "out", resume=vault).train()


def test_one_vault_for_one_trainer(tmp_path: Path) -> None:
    """resume= and a VaultLayerCallback together would fence each other: refused when the Trainer is made."""
    with pytest.raises(SettingsError, match="not both"):
        trainer(tmp_path / "out", resume=tmp_path / "v", callbacks=[VaultLayerCallback(tmp_path / "v")])


@pytest.mark.parametrize(
    ("paths", "missing"),
    [
        ({"model.safetensors"}, []),
        ({"pytorch_model.bin"}, []),
        ({"adapter_model.safetensors"}, []),
        ({"second/adapter_model.safetensors"}, []),
        ({"model.safetensors.index.json", "model-00001-of-00002.safetensors"}, []),
        ({"my.safetensors"}, ["the model's weights"]),
        (set(), ["the model's weights"]),
    ],
)
def test_missing_files(paths: set[str], missing: list[str]) -> None:
    """Whatever form the weights have, a checkpoint is whole with them and only with them."""
    rest = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert missing_files(paths | rest) == missing
    for name in rest:
        assert missing_files((paths | rest) - {name}) == sorted([*missing, name], key=_place)
    assert missing_files(paths | rest, world_size=2) == [*missing, "rng_state_0.pth", "rng_state_1.pth"]


def _place(name: str) -> int:
    return [
        "trainer_state.json",
        "the model's weights",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    ].index(name)


def test_a_loop_on_a_trainers_vault_is_told_whose_it_is(vault: Path, tmp_path: Path) -> None:
    """One vault holds one run: a loop says so, and doesn't list files that a Trainer never writes."""
    whole = model()
    ckpt = Checkpointer(
        vault, model=whole, optimizer=torch.optim.AdamW(whole.parameters()), output_dir=tmp_path / "o"
    )
    with pytest.raises(
        NoUsableCheckpointError, match=r"a Trainer has written it.*give this one a vault of its own"
    ):
        ckpt.resume()


def test_a_trainer_on_a_loops_vault_is_told_whose_it_is(tmp_path: Path) -> None:
    """The same the other way round."""
    whole = model()
    ckpt = Checkpointer(
        tmp_path / "loop",
        model=whole,
        optimizer=torch.optim.AdamW(whole.parameters()),
        output_dir=tmp_path / "o",
    )
    ckpt.resume()
    ckpt.step()
    ckpt.finish()
    with pytest.raises(NoUsableCheckpointError, match=r"a Checkpointer has written it.*vault of its own"):
        trainer(tmp_path / "out", resume=tmp_path / "loop").train()
