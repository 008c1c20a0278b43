"""The callback without our Trainer: VaultLayerCallback in any Trainer's callbacks."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.trainer.conftest import Reference
from tests.trainer.kit import STEPS, Boom, Do, FailAt, model, state_of, steps_of, trainer, weights
from vaultlayer_hf import SettingsError, VaultLayerCallback
from vaultlayer_hf.vault.snapshot import LOCAL


def test_goes_on_to_the_same_weights(tmp_path: Path, reference: Reference) -> None:
    """A stock Trainer with the callback, stopped by an exception, ends bit-identical on an emptied disk."""
    vault = VaultLayerCallback(tmp_path / "vault")
    first = trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[vault, FailAt(5)])
    with pytest.raises(Boom):
        first.train(resume_from_checkpoint=vault.pull())
    vault.close()

    vault = VaultLayerCallback(tmp_path / "vault")
    second = trainer(tmp_path / "b", cls=transformers.Trainer, callbacks=[vault])
    path = vault.pull()
    assert path == str(tmp_path / "b" / "checkpoint-4")
    assert second.train(resume_from_checkpoint=path).global_step == STEPS
    assert weights(second.model) == reference.weights
    assert state_of(tmp_path / "vault").finished == STEPS


def _tuned(tmp_path: Path, name: str, vault: VaultLayerCallback, adapter: bool) -> Any:
    """A stock Trainer with the callback, of a model or of an adapter upon it."""
    net = model()
    if adapter:
        peft = pytest.importorskip("peft")
        net = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    return trainer(tmp_path / name, cls=transformers.Trainer, model=net, callbacks=[vault])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
def test_a_run_that_is_over_is_loaded_and_trains_none(adapter: bool, tmp_path: Path) -> None:
    """train() of the callback trains to the end; started again on a new disk it loads that end and trains no step."""
    first = _tuned(tmp_path, "a", vault := VaultLayerCallback(tmp_path / "vault"), adapter)
    untrained = weights(first.model)
    assert vault.train(first).global_step == STEPS
    again = _tuned(tmp_path, "b", vault := VaultLayerCallback(tmp_path / "vault"), adapter)
    assert weights(again.model) == untrained
    assert vault.train(again).global_step == STEPS
    assert weights(again.model) == weights(first.model) != untrained
    assert vault.finished == STEPS


def test_what_pull_has_not_loaded_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """pull() of a run that is over warns, once, that the model in memory isn't the trained one; else it doesn't."""
    vault = VaultLayerCallback(tmp_path / "vault")
    first = trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[vault])
    first.train(resume_from_checkpoint=vault.pull())
    assert "isn't the trained one" not in caplog.text
    for steps, said in ((STEPS, 1), (STEPS + 1, 0)):
        caplog.clear()
        vault = VaultLayerCallback(tmp_path / "vault")
        trainer(tmp_path / "b", cls=transformers.Trainer, callbacks=[vault], max_steps=steps)
        vault.pull()
        vault.pull()
        vault.close()
        warned = [r for r in caplog.records if "isn't the trained one" in r.getMessage()]
        assert [r.levelno for r in warned] == [logging.WARNING] * said


def test_train_takes_a_trainer_without_the_callback(tmp_path: Path, reference: Reference) -> None:
    """A Trainer that was made without it gets it, and goes on behind an exception; a second vault is refused."""
    vault = VaultLayerCallback(tmp_path / "vault")
    with pytest.raises(Boom):
        vault.train(trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[FailAt(5)]))
    vault = VaultLayerCallback(tmp_path / "vault")
    second = trainer(tmp_path / "b", cls=transformers.Trainer)
    assert vault.train(second).global_step == STEPS
    assert weights(second.model) == reference.weights
    third = trainer(tmp_path / "c", resume=tmp_path / "other")
    with pytest.raises(SettingsError, match="one vault"):
        vault.train(third)
    assert vault not in third.callback_handler.callbacks, "the next cell's train() would commit to both"
    third.train()
    assert steps_of(tmp_path / "other")[-1] == STEPS


def test_pull_needs_the_trainer(tmp_path: Path) -> None:
    """pull() before any Trainer exists says what to do instead of guessing an output_dir."""
    with pytest.raises(SettingsError, match=r"callbacks=\[vault\] first"):
        VaultLayerCallback(tmp_path / "vault").pull()


def test_pull_twice_is_one_claim(tmp_path: Path) -> None:
    """A second pull() returns the same path and doesn't fence the first."""
    vault = VaultLayerCallback(tmp_path / "vault")
    trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[vault])
    assert vault.pull() is None
    assert vault.pull() is None
    assert state_of(tmp_path / "vault").token == 1
    vault.close()


def test_forgotten_pull_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """train() without pull() on a vault that holds a checkpoint starts at step 0, and warns with the fix."""
    first = VaultLayerCallback(tmp_path / "vault")
    trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[first], max_steps=2).train()
    caplog.clear()
    second = VaultLayerCallback(tmp_path / "vault")
    trainer(tmp_path / "b", cls=transformers.Trainer, callbacks=[second], max_steps=2).train()
    said = [r for r in caplog.records if "vault.pull()" in r.getMessage()]
    assert [r.levelno for r in said] == [logging.WARNING]
    assert "checkpoint-2" in said[0].getMessage()
    assert steps_of(tmp_path / "vault") == [2, 2]


class _Greets(VaultLayerCallback):
    """A subclass with an on_init_end of its own, that hands on what it is told."""

    def on_init_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_init_end(*args, **kwargs)


class _Silent(VaultLayerCallback):
    """A subclass that keeps the Trainer's start for itself."""

    def on_init_end(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("kind", [_Greets, _Silent])
def test_subclasses_find_their_trainer(kind: type[VaultLayerCallback], tmp_path: Path) -> None:
    """A subclass with an on_init_end of its own has the vault's figures in the Trainer's logs all the same."""
    vault = kind(tmp_path / "vault")
    logged: list[dict[str, float]] = []
    reporter = transformers.TrainerCallback()
    reporter.on_log = lambda *args, logs, **kwargs: logged.append(dict(logs)) if "loss" in logs else None
    trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=[vault, reporter], max_steps=4).train()
    assert len(logged) == 4
    assert all("vault/commits" in entry for entry in logged)


def test_a_handler_that_is_not_found_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that is called by nothing that transformers knows as a handler says what is missing for that."""
    vault = VaultLayerCallback(tmp_path / "vault")
    run = trainer(tmp_path / "a", cls=transformers.Trainer)
    told = {"model": run.model, "train_dataloader": run.get_train_dataloader()}
    run.state.max_steps = 1
    vault.on_init_end(run.args, run.state, run.control, **told)
    vault.on_train_begin(run.args, run.state, run.control, **told)
    vault.close()
    assert [r.levelno for r in caplog.records if "can't be found" in r.getMessage()] == [logging.WARNING]


@pytest.mark.parametrize("broken", [False, True])
def test_transformers_is_as_before(broken: bool, tmp_path: Path) -> None:
    """A training that has ended or broken off leaves the Trainer's own skip_first_batches in its module."""
    before = transformers.trainer.skip_first_batches
    vault = VaultLayerCallback(tmp_path / "vault")
    during: list[bool] = []
    look = Do(on_step_end=lambda _: during.append(transformers.trainer.skip_first_batches is before))
    callbacks = [vault, look, *([FailAt(2)] if broken else [])]
    run = trainer(tmp_path / "a", cls=transformers.Trainer, callbacks=callbacks, max_steps=4)
    with pytest.raises(Boom) if broken else contextlib.nullcontext():
        run.train()
    vault.close()
    assert not any(during)
    assert transformers.trainer.skip_first_batches is before


def test_what_is_ours_stays_out_of_the_hub() -> None:
    """push_to_hub of a Trainer leaves our folder in output_dir out, as it leaves out the checkpoints."""
    import inspect
    import re

    from huggingface_hub.utils import filter_repo_objects

    code = inspect.getsource(transformers.Trainer.push_to_hub)
    patterns = re.search(r"ignore_patterns=\[\"(.+?)\"", code)
    assert patterns is not None
    kept = filter_repo_objects(
        [f"{LOCAL}/v/1/2-checkpoint-4/files/optimizer.pt", "a"], ignore_patterns=[patterns[1]]
    )
    assert list(kept) == ["a"]
