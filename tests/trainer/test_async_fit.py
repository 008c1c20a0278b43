"""Where a save beside the training isn't safe, it is stock's own, and the reason is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

from tests.trainer.async_kit import MARKS, asked, contents, local
from tests.trainer.kit import STEPS, Do, Recorder, big_model, steps_of, trainer
from vaultlayer_hf.state.capture import copier
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.trainer.async_save.facts import reader_of_folder
from vaultlayer_hf.trainer.async_save.fit import Facts, choose

pytestmark = MARKS


def test_the_folder_is_there_when_others_hear_of_the_save(tmp_path: Path) -> None:
    """A callback that reads the checkpoint's folder in on_save finds it whole."""
    out, found = tmp_path / "out", []
    look = Do(on_save=lambda state: found.append(contents(out).keys() >= wanted(state.global_step)))

    def wanted(step: int) -> set[str]:
        return {
            f"checkpoint-{step}/{name}"
            for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")
        }

    run = trainer(out, resume=asked(tmp_path / "vault"), model=big_model(), callbacks=[look])
    heard = Recorder(run)
    run.train()
    assert found == [True] * (STEPS // 2)
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "saves keep training waiting until they are written: Do.on_save may read" in said


@pytest.mark.parametrize(
    ("tracker", "attribute", "reading", "other"),
    [
        ("WandbCallback", "_log_model", "checkpoint", "end"),
        ("DVCLiveCallback", "_log_model", "all", True),
        ("ClearMLCallback", "_log_model", True, False),
        ("TrackioCallback", "", None, None),
    ],
)
def test_trackers_that_read_the_folder(tracker: str, attribute: str, reading: Any, other: Any) -> None:
    """A save waits for those of transformers' trackers that upload checkpoints, not for those that are told losses."""
    made = object.__new__(getattr(transformers.integrations.integration_utils, tracker, TrainerCallback))
    assert reader_of_folder([made]) == (f"{tracker}.on_save" if attribute else "")
    if attribute:
        setattr(made, attribute, SimpleNamespace(value=other))
        assert not reader_of_folder([made])
        setattr(made, attribute, SimpleNamespace(value=reading))
        assert reader_of_folder([made])


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]) -> None:
    """With too little memory for a copy saves are stock's, and the reason is said once."""
    monkeypatch.setattr(copier, "free_memory", lambda: 100 * 2**20)
    run = trainer(tmp_path / "out", resume=asked(tmp_path / "vault"), model=big_model())
    heard = Recorder(run)
    run.train()
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "host memory" in said
    assert not copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("facts", "mode", "why"),
    [
        ({}, "overlapped", ""),
        ({"wanted": False}, "waiting", ""),
        ({"engine": "DeepSpeed"}, "waiting", "DeepSpeed"),
        ({"pushes": True}, "waiting", "push_to_hub"),
        ({"away": True}, "waiting", "device"),
        ({"saved_by": ("my_script.save_model",)}, "waiting", "my_script.save_model"),
        (
            {"saved_by": ("transformers.trainer._save", "trl.trainer.sft_trainer._save_checkpoint")},
            "overlapped",
            "",
        ),
        ({"saved_by": ("trl.trainer.grpo_trainer._save_checkpoint",)}, "waiting", "grpo_trainer"),
        ({"optim": "galore_adamw_layerwise"}, "copied", "backward"),
        ({"optim": "adalomo"}, "copied", "backward"),
        ({"steps_in_backward": True}, "copied", "backward"),
        ({"swaps_for_evaluation": True}, "copied", "evaluation"),
        ({"has_step_hooks": False}, "copied", "in front of"),
        ({"trained_by": ("my_script.training_step",)}, "copied", "my_script.training_step"),
    ],
)
def test_where_it_is_safe(facts: dict[str, Any], mode: str, why: str) -> None:
    """Each thing that makes the overlap unsafe is named, with what is done in its place."""
    fit = choose(dataclasses.replace(Facts(), **facts))
    assert fit.mode == mode
    assert why in fit.reason
    assert bool(fit.reason) == bool(why)


class Closed(torch.optim.SGD):
    """An optimizer of a script's own that answers only what it is meant for."""

    @property
    def eval(self) -> None:
        raise RuntimeError("what for?")


def test_what_cannot_be_looked_into(tmp_path: Path) -> None:
    """Whatever an optimizer of the script's own raises there, saves are stock's, and that is said."""
    made = big_model()
    optimizer = Closed(made.parameters(), lr=0.1)
    run = trainer(
        tmp_path,
        model=made,
        resume=asked(tmp_path / "vault"),
        optimizers=(optimizer, None),
        max_steps=2,
        save_steps=2,
    )
    heard = Recorder(run)
    run.train()
    assert steps_of(tmp_path / "vault") == [2]
    (said,) = [event.message for event in heard.events if "async_save" in event.message]
    assert "can't be looked into: RuntimeError: what for?" in said


class OwnSave(transformers.Trainer):
    """A Trainer that writes a file of its own into each checkpoint."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        assert output_dir is not None
        assert (Path(output_dir) / "model.safetensors").is_file()
        (Path(output_dir) / "own.txt").write_text("own")


def test_a_save_of_the_scripts_own(tmp_path: Path, copies: list[int]) -> None:
    """A script that overrides a part of the save has stock's save, and is told so."""
    from vaultlayer_hf import resumable

    run = trainer(
        tmp_path / "out", cls=resumable(OwnSave), resume=asked(tmp_path / "vault"), model=big_model()
    )
    heard = Recorder(run)
    run.train()
    assert [event for event in heard.events if "save_model" in event.message]
    assert not copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]


def test_a_step_inside_the_backward_pass(tmp_path: Path, copies: list[int]) -> None:
    """With an optimizer's step hidden in hooks behind the gradients the copy is over before the save returns."""
    made = big_model()
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda parameter: None)
        for parameter in made.parameters()
    ]
    run = trainer(tmp_path / "out", resume=asked(tmp_path / "vault"), model=made)
    heard = Recorder(run)
    run.train()
    assert [event for event in heard.events if "backward" in event.message]
    assert copies
    assert local(tmp_path / "out") == [2, 4, 6, 8]
    assert handles


def test_nothing_is_said_where_nobody_asked() -> None:
    """The default is stock's save, without a word."""
    assert choose(Facts(wanted=False, engine="FSDP")) == Fit("waiting")
