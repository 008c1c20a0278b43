"""Whether what is trained is still finite."""

from __future__ import annotations

import pytest
import torch

from vaultlayer_hf.state.finite import SHOWN_BY_PARAMETERS, nonfinite_state


def linear(dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    """A layer of ones."""
    layer = torch.nn.Linear(300, 300, dtype=dtype)
    layer.weight.data.fill_(1.0)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_is_found(dtype: torch.dtype, value: float) -> None:
    """One nan or infinity among a model's trained values is found and named; without it all is finite."""
    layer = linear(dtype)
    assert nonfinite_state({"": layer}) == ""  # in float16 the sum of 90000 ones overflows
    layer.weight.data[7, 9] = value
    assert nonfinite_state({"head/": layer}) == "head/weight is nan or infinite"


class Own(torch.optim.SGD):
    """An optimizer of a script's own: what its state means is its own, too."""


def test_infinities_by_design_are_none_of_it() -> None:
    """A mask of -inf, frozen or not a parameter, and an optimizer's running least are as they should be."""
    layer = linear()
    layer.register_buffer("mask", torch.tensor([0.0, float("-inf"), float("inf")]))
    layer.bias.requires_grad = False
    layer.bias.data.fill_(float("-inf"))
    optimizer = Own([layer.weight], lr=0.1, momentum=0.9)
    optimizer.state[layer.weight]["least"] = torch.tensor([float("inf")])
    assert nonfinite_state({"": layer}, [optimizer]) == ""
    optimizer.state[layer.weight]["least"] = torch.tensor([float("nan")])
    assert nonfinite_state({"": layer}, [optimizer]) == "the optimizer's 0.least is nan or infinite"
    assert nonfinite_state({"": layer}, [optimizer], float("inf")) == "the loss is inf"
    layer.mask[0] = float("nan")
    assert "mask" in nonfinite_state({"": layer})


@pytest.mark.parametrize("kind", sorted(SHOWN_BY_PARAMETERS, key=str), ids=lambda kind: kind.__name__)
def test_a_nan_in_the_state_of_these_is_one_in_the_parameter(kind: type[torch.optim.Optimizer]) -> None:
    """The premise by which their state isn't read: a nan that reaches it is in the parameter in the same step."""
    for options in ({}, {"momentum": 0.9}, {"foreach": True}, {"amsgrad": True}):
        parameter = torch.nn.Parameter(torch.ones(4, 4))
        try:
            optimizer = kind([parameter], lr=0.1, **options)  # type: ignore[call-arg]
        except TypeError:  # not one of its options
            continue
        for value in (0.1, 0.2, float("nan")):
            parameter.grad = torch.full((4, 4), 0.1)
            parameter.grad[1, 2] = value
            optimizer.step()
        assert torch.isnan(parameter[1, 2])
        assert nonfinite_state({"": torch.nn.ParameterDict({"one": parameter})}, [optimizer]) == (
            "one is nan or infinite"
        )


def test_a_state_whose_parameter_is_not_looked_at_is() -> None:
    """An optimizer may train more than the models that are named: its state is all that is known of the rest."""
    layer, other = linear(), linear()
    optimizer = torch.optim.SGD([*layer.parameters(), *other.parameters()], lr=0.1, momentum=0.9)
    optimizer.state[layer.weight]["momentum_buffer"] = torch.ones(2)
    optimizer.state[other.weight]["momentum_buffer"] = torch.tensor([float("nan")])
    assert nonfinite_state({"": layer}, [optimizer]) == "the optimizer's 2.momentum_buffer is nan or infinite"
