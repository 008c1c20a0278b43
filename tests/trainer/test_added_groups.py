"""Groups of parameters that an optimizer is given in mid-run: a start gives them to its own ahead of the load."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, LinearLR, SequentialLR, StepLR
from transformers import TrainerCallback

from tests.trainer.kit import Boom, FailAt, Patient, Recorder, model, trainer, weights
from vaultlayer_hf import OtherRunError, Settings
from vaultlayer_hf.state.capture import copier, recorded

ADDED_AT = 3
Make = Callable[[torch.optim.Optimizer], Any]


def shrink(step: int, by: float = 0.9) -> float:
    """Return the part of a rate that is left at a step."""
    return float(by**step)


class Shrink:
    """The same as an object, with a count that its schedule carries."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 0.99**self.calls


class Thaw(TrainerCallback):
    """Has a layer trained from a step on, in a group of its own; ``extend`` is called with the schedule."""

    def __init__(self, extend: Callable[[Any, int], None], at: int = ADDED_AT) -> None:
        self.extend, self.at = extend, at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            thaw(kwargs["model"], kwargs["optimizer"])
            self.extend(kwargs["lr_scheduler"], state.global_step)


def thaw(of: Any, optimizer: Any) -> None:
    """Have the model's last layer trained, with a rate of its own."""
    layer = of.model.layers[1]
    layer.requires_grad_(True)
    optimizer.add_param_group({"params": list(layer.parameters()), "lr": 5e-3, "initial_lr": 5e-3})


def rates(schedule: Any, step: int) -> None:
    """Extend what every schedule has."""
    schedule.base_lrs.append(5e-3)


def lambdas(schedule: Any, step: int) -> None:
    """Extend a schedule with a lambda that reads a number from around it."""
    rates(schedule, step)
    schedule.lr_lambdas.append(lambda now: 0.8 ** (now - step))


def functions(schedule: Any, step: int) -> None:
    """Extend it with the function that is there."""
    rates(schedule, step)
    schedule.lr_lambdas.append(schedule.lr_lambdas[0])


def partials(schedule: Any, step: int) -> None:
    """Extend it with a function of the module, with a number."""
    rates(schedule, step)
    schedule.lr_lambdas.append(partial(shrink, by=0.7))


def objects(schedule: Any, step: int) -> None:
    """Extend it with an object that counts."""
    rates(schedule, step)
    schedule.lr_lambdas.append(Shrink())


def both(schedule: Any, step: int) -> None:
    """Extend the schedules within one."""
    inside = vars(schedule)["_schedulers"]
    for one in inside:
        rates(one, step)
    inside[1].lr_lambdas.append(shrink)


def flat(optimizer: torch.optim.Optimizer) -> Any:
    """Make a schedule of a function."""
    return LambdaLR(optimizer, shrink)


def sequence(optimizer: torch.optim.Optimizer) -> Any:
    """Make a schedule of two."""
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.5, 1.0, 2), LambdaLR(optimizer, shrink)], [2])


def steps(optimizer: torch.optim.Optimizer) -> Any:
    """Make a schedule without functions."""
    return StepLR(optimizer, 2)


def made(folder: Path, resume: Any, make: Make, *callbacks: Any, named: bool = False) -> Any:
    """A Trainer that trains the head of a model alone, as it begins."""
    tiny = model(layers=2)
    tiny.requires_grad_(False)
    head: Any = [*tiny.model.norm.named_parameters()] if named else [*tiny.model.norm.parameters()]
    tiny.model.norm.requires_grad_(True)
    optimizer = torch.optim.AdamW(head, lr=1e-2)
    kept = (optimizer, make(optimizer))
    return trainer(folder, model=tiny, resume=resume, optimizers=kept, callbacks=list(callbacks))


@pytest.mark.parametrize("async_save", ["off", "auto"])
@pytest.mark.parametrize(
    ("make", "extend"),
    [
        (steps, rates),
        (flat, lambdas),
        (flat, functions),
        (flat, partials),
        (flat, objects),
        (sequence, both),
    ],
)
def test_a_group_that_was_added_comes_back(
    make: Make, extend: Any, async_save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind two deaths a training with a group of mid-run ends with an unbroken one's weights, and names nothing."""
    monkeypatch.setattr(copier, "SMALL", 0)
    monkeypatch.setattr(recorded, "WRITTEN_AT_ONCE", 0)
    whole = made(tmp_path / "whole", None, make, Thaw(extend))
    whole.train()
    vault = tmp_path / "vault"
    resume = Settings(vault=str(vault), async_save=async_save)
    for fails in (5, 7):
        run = made(tmp_path / "a", resume, make, Thaw(extend), FailAt(fails), Patient(vault))
        seen = Recorder(run)
        with pytest.raises(Boom):
            run.train()
        assert not [event.message for event in seen.of("inexact") if "lr_scheduler" in event.message]
    last = made(tmp_path / "b", resume, make, Thaw(extend))
    last.train()
    assert weights(last.model) == weights(whole.model)
    assert [one["lr"] for one in last.optimizer.param_groups] == [
        one["lr"] for one in whole.optimizer.param_groups
    ]


def dies(folder: Path, vault: Path, *callbacks: Any, make: Make = steps) -> list[str]:
    """Train till the fifth step; return what was said to be inexact."""
    run = made(folder, vault, make, *callbacks, FailAt(5), Patient(vault))
    seen = Recorder(run)
    with pytest.raises(Boom):
        run.train()
    return [event.message for event in seen.of("inexact")]


class Stray(TrainerCallback):
    """Gives the optimizer a parameter that no model has."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == ADDED_AT:
            kwargs["optimizer"].add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1.0})
            kwargs["lr_scheduler"].base_lrs.append(1.0)


def test_parameters_of_no_model_are_refused(tmp_path: Path) -> None:
    """A group whose parameters no model has is named at the save, and a start says why it can't go on."""
    vault = tmp_path / "vault"
    said = dies(tmp_path / "a", vault, Stray())
    assert any("in mid-run, and parameters in them are none of the model's" in one for one in said), said
    with pytest.raises(OtherRunError, match=r"added in mid-run .*none of the model's"):
        made(tmp_path / "a", vault, steps, Stray()).train()


def test_parameters_of_no_model_that_are_given_first_go_on(tmp_path: Path) -> None:
    """A script that heeds this, and gives them ahead of train(), goes on, to a checkpoint that another start takes."""
    vault = tmp_path / "vault"
    dies(tmp_path / "a", vault, Stray())
    for fails in (7, 0):
        callbacks = [FailAt(fails), Patient(vault)] if fails else []
        run = made(tmp_path / "a", vault, steps, *callbacks)
        run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1.0})
        run.lr_scheduler.base_lrs.append(1.0)
        seen = Recorder(run)
        with pytest.raises(Boom) if fails else nullcontext():
            run.train()
        assert not [one.message for one in seen.of("inexact") if "mid-run" in one.message]


def test_a_function_that_holds_objects_is_refused(tmp_path: Path) -> None:
    """A schedule's function that reads an object from around it is named at the save, and refused at a start."""

    def extend(schedule: Any, step: int) -> None:
        rates(schedule, step)
        held = Shrink()
        schedule.lr_lambdas.append(lambda now: held(now))

    vault = tmp_path / "vault"
    said = dies(tmp_path / "a", vault, Thaw(extend), make=flat)
    assert any("extend.<locals>.<lambda>" in one for one in said), said
    with pytest.raises(OtherRunError, match=r"in mid-run .*extend.<locals>.<lambda>"):
        made(tmp_path / "a", vault, flat, Thaw(extend)).train()


class Eager(TrainerCallback):
    """Gives the group at the begin of each training."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        thaw(kwargs["model"], kwargs["optimizer"])
        rates(kwargs["lr_scheduler"], 0)


def test_a_group_that_each_start_adds_is_refused(tmp_path: Path) -> None:
    """A group that a callback gives at each begin of a training is refused with what to do, not by torch's words."""
    vault = tmp_path / "vault"
    dies(tmp_path / "a", vault, Eager())
    with pytest.raises(
        OtherRunError, match=r"(once train\(\) had begun|once more at this start).* ahead of train"
    ):
        made(tmp_path / "a", vault, steps, Eager()).train()


def test_parameters_with_names_come_back(tmp_path: Path) -> None:
    """An optimizer whose parameters have names is given those of a group of mid-run with names, too."""

    class Named(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == ADDED_AT:
                layer = kwargs["model"].model.layers[1].requires_grad_(True)
                kwargs["optimizer"].add_param_group({"params": [*layer.named_parameters()], "lr": 5e-3})
                rates(kwargs["lr_scheduler"], ADDED_AT)

    whole = made(tmp_path / "whole", None, steps, Named(), named=True)
    whole.train()
    vault = tmp_path / "vault"
    run = made(tmp_path / "a", vault, steps, Named(), FailAt(5), Patient(vault), named=True)
    with pytest.raises(Boom):
        run.train()
    last = made(tmp_path / "b", vault, steps, Named(), named=True)
    last.train()
    assert weights(last.model) == weights(whole.model)
    names = [one["param_names"] for one in last.optimizer.param_groups]
    assert names == [one["param_names"] for one in whole.optimizer.param_groups]
