"""What a loop's checkpoint keeps beside its objects: tensors of no module, gradients, options of groups."""

from __future__ import annotations

from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import pytest
import torch

from vaultlayer_hf import Checkpointer
from vaultlayer_hf.errors import ResumeError, SettingsError
from vaultlayer_hf.loops.loose_parameters import loose_parameters, put_loose


def _train(folder: Path, stop: int, *, lasting: bool = False) -> dict[str, torch.Tensor]:
    """Train a model, and a temperature that it hasn't got, up to a step; return what was trained."""
    torch.manual_seed(0)
    model, heat = torch.nn.Linear(3, 3), torch.ones(1, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": model.parameters()}, {"params": [heat], "lr": 0.5}], lr=0.1)
    ckpt = Checkpointer(
        str(folder / "vault"), model=model, optimizer=optimizer, save_every=1, output_dir=folder / "out"
    )
    if lasting:
        ckpt.add("gradients", Checkpointer.gradients(model))
    for _ in range(ckpt.resume(), stop):
        ((model(torch.randn(4, 3)) / heat) ** 2).mean().backward()
        optimizer.step()
        if not lasting:
            optimizer.zero_grad()
        else:
            heat.grad = None
        ckpt.step()
    ckpt.close()
    return {**{name: value.detach() for name, value in model.state_dict().items()}, "heat": heat.detach()}


@pytest.mark.parametrize("lasting", [False, True])
def test_tensors_of_no_module_and_gradients_that_last_come_back(tmp_path: Path, lasting: bool) -> None:
    """A loop that is stopped and goes on ends with the same weights and the same temperature, bit by bit."""
    whole = _train(tmp_path / "whole", 6, lasting=lasting)
    _train(tmp_path / "parts", 3, lasting=lasting)
    parts = _train(tmp_path / "parts", 6, lasting=lasting)
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_other_loose_tensors_are_refused(tmp_path: Path) -> None:
    """A start whose optimizer trains other tensors beside the model is told so, and nothing is copied."""
    model, one = torch.nn.Linear(2, 2), torch.zeros(2, requires_grad=True)
    now = loose_parameters([torch.optim.SGD([*model.parameters(), one])], [model])
    assert list(now) == ["0/0/2"]
    with pytest.raises(ResumeError, match="loose_parameters"):
        put_loose({"0/0/2": torch.ones(3)}, now, "checkpoint-1")
    assert torch.equal(one, torch.zeros(2))


def test_options_of_groups_come_back_in_place() -> None:
    """All options are as they were, and a rate that is a tensor stays that tensor; no parameters are kept."""
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), lr=rate)
    options = Checkpointer.options(optimizer)
    saved = {
        "groups": [{k: v.clone() if v is rate else v for k, v in options.state_dict()["groups"][0].items()}]
    }
    assert "params" not in saved["groups"][0]
    rate.mul_(0.5)
    optimizer.param_groups[0]["weight_decay"] = 0.3
    options.load_state_dict(saved)
    assert (optimizer.param_groups[0]["lr"] is rate, rate.item()) == (True, pytest.approx(0.1))
    assert optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize("empty", [list, dict, set, deque, OrderedDict])
def test_contents_come_back_into_the_container_that_is_there(empty: type, tmp_path: Path) -> None:
    """Whoever holds the list, dict, set or deque sees in it what was saved, in its order if it has one, and no more."""
    items = [("b", 2), ("a", 1)]
    before, now = empty(items), empty([("c", 3)])
    for step, held in enumerate((before, now)):
        ckpt = Checkpointer(
            str(tmp_path / "vault"),
            model=torch.nn.Linear(1, 1),
            save_every="none",
            output_dir=tmp_path / "out",
        )
        assert ckpt.resume() == step
        ckpt.carry(lambda held=held: {"held": Checkpointer.contents(held)})
        ckpt.step()
        ckpt.save()
        ckpt.close()
    assert now == before
    if empty is not set:  # two equal sets may have two orders: where hashes collide, who came first counts
        assert list(now) == list(before)


def test_contents_of_what_holds_nothing_are_refused() -> None:
    """A number, or a tuple, can't be filled: it is said which way it goes."""
    with pytest.raises(SettingsError, match=r"not a tuple: name it in carry\(\)"):
        Checkpointer.contents((1, 2))


def test_an_object_that_holds_the_model_keeps_the_rest_of_itself(tmp_path: Path) -> None:
    """What has a file of its own in the checkpoint isn't kept once more by an object that holds it."""

    class Holder:
        def __init__(self, model: torch.nn.Module) -> None:
            self.model, self.seen, self.nothing = model, 0, None

    model = torch.nn.Linear(2, 2)
    ckpt = Checkpointer(str(tmp_path / "vault"), model=model, save_every=1, output_dir=tmp_path / "out")
    ckpt.resume()
    holder = Holder(model)
    ckpt.carry(lambda: {"holder": holder})
    holder.seen = 4
    ckpt.step()
    state = torch.load(tmp_path / "out" / "checkpoint-1" / "data_0.pt", weights_only=False)
    ckpt.close()
    kind, kept = state["carried"]["holder"]
    assert kind == "object"
    assert kept == {"model": ("none", None), "seen": ("value", 4), "nothing": ("value", None)}


def test_groups_that_came_on_the_way_are_added_before_the_state_is_loaded(tmp_path: Path) -> None:
    """An optimizer that was given a layer more goes on with it, and with the rate that it was given."""

    def train(folder: Path, stop: int) -> tuple[torch.nn.Module, list[float]]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
        optimizer = torch.optim.Adam(model[1].parameters(), lr=0.1)
        ckpt = Checkpointer(
            str(folder / "vault"), model=model, optimizer=optimizer, save_every=1, output_dir=folder / "out"
        )
        for step in range(ckpt.resume(), stop):
            if step == 2:
                optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.03})
            model(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            ckpt.step()
        ckpt.close()
        return model, [group["lr"] for group in optimizer.param_groups]

    whole, _ = train(tmp_path / "whole", 6)
    for stop in (2, 4):
        train(tmp_path / str(stop), stop)
        model, rates = train(tmp_path / str(stop), 6)
        assert rates == [0.1, 0.03]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_lists_of_a_models_own_parameters_keep_them(tmp_path: Path) -> None:
    """What holds the model's own tensors holds them behind a resume, too, and beside them what was saved."""

    def train(stop: int) -> bool:
        model = torch.nn.Linear(2, 2)
        held: dict[str, Any] = {"weight": model.weight, "mean": torch.zeros(2)}
        pair: tuple[Any, int] = (model.bias, 0)
        ckpt = Checkpointer(str(tmp_path / "vault"), model=model, save_every=1, output_dir=tmp_path / "out")
        start = ckpt.resume()
        held, pair = ckpt.carry(lambda: {"held": held, "pair": pair})
        came_back = (held["mean"][0].item(), pair[1], "more" in held) == (start, start, start > 0)
        same = held["weight"] is model.weight and pair[0] is model.bias
        for step in range(start, stop):
            held["mean"] = held["mean"] + 1
            held["more"] = step
            pair = (model.bias, step + 1)
            ckpt.step()
        ckpt.close()
        return came_back and same

    assert train(2)
    assert train(4)


class Around(torch.optim.Optimizer):
    """An optimizer around another one, whose groups it holds, as Lookahead and SAM do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


@pytest.mark.parametrize("way", ["around", "tensor"])
def test_what_holds_an_optimizers_groups_still_sets_the_rate(tmp_path: Path, way: str) -> None:
    """A schedule of an optimizer around the saved one, and a rate that the script holds, count behind a resume."""

    def train(folder: Path, stop: int) -> torch.Tensor:
        torch.manual_seed(0)
        model, rate = torch.nn.Linear(3, 1), torch.tensor(0.1)
        optimizer: Any = torch.optim.AdamW(model.parameters(), lr=rate if way == "tensor" else 0.1)
        outer = Around(optimizer)
        schedule = torch.optim.lr_scheduler.StepLR(outer, 1, 0.5) if way == "around" else None
        ckpt = Checkpointer(
            str(folder / "vault"),
            model=model,
            optimizer=optimizer,
            scheduler=schedule,
            save_every=1,
            output_dir=folder / "out",
        )
        for _ in range(ckpt.resume(), stop):
            model(torch.randn(4, 3)).pow(2).mean().backward()
            outer.step()
            outer.zero_grad()
            schedule.step() if schedule is not None else rate.mul_(0.5)
            ckpt.step()
        ckpt.close()
        return model.weight.detach()

    whole = train(tmp_path / "whole", 6)
    train(tmp_path / "parts", 3)
    assert torch.equal(train(tmp_path / "parts", 6), whole)
