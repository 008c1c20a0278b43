"""Saves beside the training of models and optimizers whose state moves in odd ways: stock's bytes, or a reason said."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

from tests.kit.copies import slow_copy
from tests.trainer.async_kit import asked, contents, lost_saves
from tests.trainer.kit import Recorder, trainer
from vaultlayer_hf import resumable
from vaultlayer_hf.state.capture import copier, recorded

pytestmark = pytest.mark.usefixtures("no_time_in_the_arguments")
WIDTH = 64
Made = tuple[torch.nn.Module, dict[str, Any]]
MOVES = "parameters change outside of the optimizer's step"


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "SMALL", 0)
    monkeypatch.setattr(recorded, "WRITTEN_AT_ONCE", 0)


class Odd(torch.nn.Module):
    """An embedding, a layer and a head; ``touch`` is called with it in each forward pass of a training."""

    def __init__(self, touch: Callable[[Any], object] = lambda model: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Embedding(64, WIDTH)
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self.head = torch.nn.Linear(WIDTH, 64)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.touch = touch

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:
            with torch.no_grad():
                self.touch(self)
        found = self.layer(self.inner(input_ids).mean(1))
        logits = self.head(torch.relu(found - self.mean))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels[:, 0]), "logits": logits}


class Average(TrainerCallback):
    """Mixes a running average into the weights at the end of each step."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = list(kwargs["model"].parameters())
        self.kept = self.kept or [one.detach().clone() for one in every]
        for kept, one in zip(self.kept, every, strict=True):
            kept.mul_(0.9).add_(one.detach(), alpha=0.1)
            one.data.copy_(one.data * 0.5 + kept * 0.5)


class Thaw(TrainerCallback):
    """Has the head trained from the third step on, with a group of its own, and a bias frozen at the fifth."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if state.global_step == 3:
            model.head.requires_grad_(True)
            optimizer.add_param_group({"params": list(model.head.parameters())})
        if state.global_step == 5:
            model.layer.bias.requires_grad_(False)


class Replace(TrainerCallback):
    """Puts another model in the Trainer's hands, of which the optimizer knows nothing."""

    def __init__(self) -> None:
        self.trainer: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            self.trainer.model = self.trainer.model_wrapped = Odd()


def frozen_head() -> Made:
    """A model whose head isn't trained, with an optimizer that doesn't know it, and who has it trained later."""
    model = Odd()
    model.head.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return model, {"optimizers": (optimizer, schedule), "callbacks": [Thaw()]}


def normed(function: Callable[[torch.nn.Module], torch.nn.Module]) -> Odd:
    """A model with its layer's spectral norm kept at one."""
    model = Odd()
    model.layer = function(model.layer)  # type: ignore[assignment]
    return model


def shared() -> Odd:
    """A model with a buffer that is a part of a parameter's memory, and that the forward pass changes."""
    model = Odd(lambda one: one.part.mul_(0.99))
    model.register_buffer("part", model.layer.weight.detach()[3:5], persistent=False)
    return model


def by(make: Callable[[Any], Any], touch: Any = lambda model: None) -> Callable[[], Made]:
    """Return what makes a model with an optimizer of its own."""

    def made() -> Made:
        model = Odd(touch)
        return model, {"optimizers": (make(model), None)}

    return made


def plainly(make: Callable[[], Any], **more: Any) -> Callable[[], Made]:
    """Return what makes a model with the Trainer's own optimizer."""
    return lambda: (make(), {name: value() if callable(value) else value for name, value in more.items()})


def of_package(module: str, name: str, **options: Any) -> Callable[[Any], Any]:
    """Return what makes an optimizer of a package; skips the test where that isn't installed."""

    def make(model: Any) -> Any:
        pytest.importorskip(module.partition(".")[0])
        return getattr(importlib.import_module(module), name)(model.parameters(), **options)

    return make


def around(name: str, **options: Any) -> Callable[[Any], Any]:
    """Return what makes one of pytorch_optimizer's that stands around another one."""

    def make(model: Any) -> Any:
        pytest.importorskip("pytorch_optimizer")
        module = importlib.import_module("pytorch_optimizer")
        return getattr(module, name)(torch.optim.AdamW(model.parameters(), lr=1e-2), **options)

    return make


def averaged(model: Any) -> None:
    model.mean.mul_(0.9).add_(model.inner.weight.mean(0), alpha=0.1)


def normalised(model: Any) -> None:
    model.head.weight.copy_(torch.nn.functional.normalize(model.head.weight))


def clamped(model: Any) -> None:
    model.head.weight.data.clamp_(-0.1, 0.1)


def torchs(name: str, **options: Any) -> Callable[[], Made]:
    """Return what makes a model with one of torch's optimizers."""
    return by(lambda model: getattr(torch.optim, name)(model.parameters(), lr=1e-2, **options))


class Counting(transformers.Trainer):
    """A Trainer whose loss counts in a buffer of the model."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        model.mean.add_(1e-3)
        return super().compute_loss(model, inputs, *args, **kwargs)


KINDS: dict[str, tuple[Callable[[], Made], str]] = {
    "an average at the end of a step": (plainly(Odd, callbacks=lambda: [Average()]), ""),
    "a buffer that the forward pass changes": (plainly(lambda: Odd(averaged)), ""),
    "spectral norm": (plainly(lambda: normed(torch.nn.utils.parametrizations.spectral_norm)), ""),
    "spectral norm of old": (plainly(lambda: normed(torch.nn.utils.spectral_norm)), ""),
    "a buffer in a parameter's memory": (plainly(shared), ""),
    "the forward pass normalises": (plainly(lambda: Odd(normalised)), MOVES),
    "the forward pass clamps": (plainly(lambda: Odd(clamped)), MOVES),
    "a group added later": (frozen_head, ""),
    "another model": (plainly(Odd, callbacks=lambda: [Replace()]), ""),
    "accumulation": (plainly(Odd, gradient_accumulation_steps=3, max_grad_norm=0.1), ""),
    "the loss counts": (plainly(Odd, cls=lambda: Counting), ""),
    "foreach": (torchs("Adam", foreach=True), ""),
    "fused": (torchs("AdamW", fused=True, amsgrad=True), ""),
    "momentum": (torchs("SGD", momentum=0.9, nesterov=True), ""),
    "rprop": (torchs("Rprop"), ""),
    "nadam": (torchs("NAdam"), ""),
    "adafactor": (plainly(Odd, optim="adafactor"), ""),
    "schedule-free": (by(of_package("schedulefree", "AdamWScheduleFree", lr=1e-2)), "evaluation"),
    "galore": (plainly(Odd, optim="galore_adamw", optim_target_modules=lambda: ["layer"]), ""),
    "galore, layer by layer": (
        plainly(Odd, optim="galore_adamw_layerwise", optim_target_modules=lambda: ["layer"]),
        "backward",
    ),
    "8 bit": (by(of_package("bitsandbytes.optim", "AdamW8bit", lr=1e-2)), ""),
    "lookahead": (by(around("Lookahead")), "through another one"),
    "adan": (by(of_package("pytorch_optimizer", "Adan", lr=1e-2)), ""),
}
QUICK = ("the forward pass clamps", "fused")
NEEDS = {"galore": "galore_torch", "galore, layer by layer": "galore_torch"}


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in QUICK else (pytest.mark.slow,)) for one in KINDS]
)
@pytest.mark.filterwarnings("ignore")
def test_stocks_bytes_or_a_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    """Every file has the bytes that it has where training waits, however late the copy runs; no checkpoint is lost."""
    make, said = KINDS[kind]
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    out = tmp_path / "out"
    found = []
    for mode in ("off", "auto"):
        model, more = make()
        cls = more.pop("cls", transformers.Trainer)
        if mode == "auto":
            slow_copy(monkeypatch, 0.05)
        settings = asked(tmp_path / mode)
        object.__setattr__(settings, "async_save", mode)
        run = trainer(out, cls=resumable(cls), model=model, resume=settings, max_steps=9, **more)
        for one in more.get("callbacks", ()):
            one.trainer = run
        heard = Recorder(run)
        run.train()
        found.append(contents(out))
        shutil.rmtree(out)
        torch.manual_seed(0)
    assert not [one for one in lost_saves(heard) if "beside" in one]
    reasons = [event.message for event in heard.events if "async_save" in event.message]
    assert found[0] == found[1], reasons
    assert len(found[1]) >= 5
    assert copies
    assert [said in one for one in reasons] == [True] * bool(said), reasons
