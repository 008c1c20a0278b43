"""Whether what is trained is still finite."""

from __future__ import annotations

import pytest
import torch

from vaultlayer_hf.state.finite import nonfinite_state


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


def test_infinities_by_design_are_none_of_it() -> None:
    """A mask of -inf, frozen or not a parameter, and an optimizer's running least are as they should be."""
    layer = linear()
    layer.register_buffer("mask", torch.tensor([0.0, float("-inf"), float("inf")]))
    layer.bias.requires_grad = False
    layer.bias.data.fill_(float("-inf"))
    optimizer = torch.optim.SGD([layer.weight], lr=0.1, momentum=0.9)
    optimizer.state[layer.weight]["least"] = torch.tensor([float("inf")])
    assert nonfinite_state({"": layer}, [optimizer]) == ""
    optimizer.state[layer.weight]["least"] = torch.tensor([float("nan")])
    assert nonfinite_state({"": layer}, [optimizer]) == "the optimizer's 0.least is nan or infinite"
    assert nonfinite_state({"": layer}, [optimizer], float("inf")) == "the loss is inf"
