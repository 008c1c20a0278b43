"""A run whose weights or loss become nan: it is said, and its last finite checkpoint stays in the vault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.kit import Boom, Do, FailAt, Patient, Recorder, steps_of, trainer
from vaultlayer_hf import open_vault
from vaultlayer_hf.vault.log.finite import DETAIL


def poisoned(out: Path, vault: Path, *more: Any, step: int = 5, **options: Any) -> Any:
    """A training whose weights become nan at the end of a step."""

    def poison(state: Any) -> None:
        if state.global_step == step:
            with torch.no_grad():
                run.model.model.norm.weight.fill_(float("nan"))

    callbacks = [Do(on_step_end=poison), Patient(vault), *more]
    run = trainer(out, resume=vault, callbacks=callbacks, **options)
    return run


def test_the_last_finite_checkpoint_stays(tmp_path: Path) -> None:
    """However many checkpoints of nan follow, the last finite one is kept, and one warning names both."""
    vault = tmp_path / "vault"
    run = poisoned(tmp_path / "a", vault, max_steps=14)
    seen = Recorder(run)
    run.train()
    assert steps_of(vault) == [4, 10, 12, 14]
    said = [event.message for event in seen.of("notice") if "isn't finite" in event.message]
    assert len(said) == 1
    assert said[0].startswith("checkpoint-6 isn't finite: model.embed_tokens.weight")
    assert f"{vault}@4" in said[0]


def test_it_stays_over_restarts_and_can_be_gone_back_to(tmp_path: Path) -> None:
    """A later process learns from the log which one is finite; its start names it, and @STEP goes on from there."""
    vault = tmp_path / "vault"
    with pytest.raises(Boom):
        poisoned(tmp_path / "a", vault, FailAt(9), max_steps=16).train()
    assert steps_of(vault) == [4, 6, 8]
    again = poisoned(tmp_path / "b", vault, max_steps=16)
    seen = Recorder(again)
    again.train()
    assert steps_of(vault) == [4, 8, 12, 14, 16]  # 8 is what this run went on from
    said = [event.message for event in seen.of("notice") if "goes on from, isn't finite" in event.message]
    assert len(said) == 1
    assert said[0].startswith("checkpoint-8, which")
    assert f"the newest finite one is of step 4: to go on from there, name {vault.as_uri()}@4" in said[0]
    with open_vault(vault) as opened:
        newest = opened.newest_finite()
        assert newest is not None
        assert newest.step == 4
        entry = next(entry for entry in opened.history() if entry.number == opened.checkpoint(16).number)
        assert "nan" in entry.detail[DETAIL]
    back = trainer(tmp_path / "c", resume=f"{vault}@4", max_steps=6)
    back.train()
    assert all(parameter.isfinite().all() for parameter in back.model.parameters())


def test_the_disk_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings thin out the folders on the disk, the last finite one stays there as well."""
    monkeypatch.setenv("VAULTLAYER_LOCAL_KEEP_LAST", "1")
    poisoned(tmp_path / "a", tmp_path / "vault", max_steps=12).train()
    left = {path.name for path in (tmp_path / "a").glob("checkpoint-*")}
    assert "checkpoint-4" in left
    assert "checkpoint-6" not in left


def test_a_loss_of_nan_counts(tmp_path: Path) -> None:
    """Where a nan is logged as the loss, that checkpoint isn't finite, though its weights still are."""

    def spoil(state: Any) -> None:
        if state.global_step == 4:
            state.log_history[-1]["loss"] = float("nan")

    vault = tmp_path / "vault"
    run = trainer(tmp_path / "a", resume=vault, callbacks=[Patient(vault)])
    seen = Recorder(run)
    run.callback_handler.callbacks = [Do(on_save=spoil), *run.callback_handler.callbacks]
    run.train()
    said = [event.message for event in seen.of("notice") if "isn't finite" in event.message]
    assert len(said) == 1
    assert said[0].startswith("checkpoint-4 isn't finite: the loss is nan.")
    assert steps_of(vault) == [4, 6, 8]
