"""Tensors within what a loop carries go back to the device that they were on: a checkpoint is read onto the CPU."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from vaultlayer_hf.loops.carried_values import put_variable, take_variable


class Pair(NamedTuple):
    """A tuple with names."""

    state: torch.Tensor
    reward: float


@dataclass(frozen=True)
class Moment:
    """An object that nobody may assign to."""

    seen: torch.Tensor


class Average:
    """An object of a script's own with a dict of tensors, as many averages of weights have it."""

    def __init__(self, device: str) -> None:
        self.shadow = {"weight": torch.zeros(2, device=device)}


def elsewhere(device: str) -> dict[str, Any]:
    """Values with tensors on a device within, which torch has on each machine where that is ``meta``."""
    one = torch.zeros(2, device=device)
    return {
        "hidden": (one, torch.zeros(3, device=device)),
        "history": [1, {"deep": [torch.zeros(4, device=device)]}],
        "buffer": deque([Pair(torch.zeros(5, device=device), 0.5)], maxlen=3),
        "twice": [one, one],
        "ordered": OrderedDict(a=Moment(torch.zeros(1, device=device))),
        "trained": [torch.nn.Parameter(torch.zeros(6, device=device))],
    }


def test_they_go_back_to_their_devices() -> None:
    """Hidden states, replay buffers and averages of a GPU are on it behind a resume, where the next step needs them."""
    taken = take_variable(elsewhere("meta"), "values", None, [], set())
    assert taken[0] == "placed"
    again = put_variable(("placed", (elsewhere("cpu"), taken[1][1])), None)  # as it is read: on the CPU
    tensors = [*again["hidden"], *again["history"][1]["deep"], again["buffer"][0].state, *again["twice"]]
    tensors += [again["ordered"]["a"].seen, again["trained"][0]]
    assert {one.device.type for one in tensors} == {"meta"}
    assert isinstance(again["buffer"][0], Pair)
    assert again["buffer"].maxlen == 3
    assert again["hidden"][0] is again["twice"][0] is again["twice"][1]
    assert isinstance(again["trained"][0], torch.nn.Parameter)
    assert again["trained"][0].is_leaf


def test_those_of_an_object_too() -> None:
    """What an object of the script's own holds in a dict is moved as well, and stays that object's."""
    taken = take_variable(Average("meta"), "average", None, [], set())
    kind, state = taken[1]["shadow"]
    assert kind == "placed"
    now = Average("meta")
    put_variable(("object", {"shadow": (kind, ({"weight": torch.ones(2)}, state[1]))}), now)
    assert now.shadow["weight"].device.type == "meta"


def test_on_the_cpu_nothing_is_noted() -> None:
    """Without a GPU a checkpoint holds the value alone, which earlier versions read."""
    assert take_variable(elsewhere("cpu"), "values", None, [], set())[0] == "value"
