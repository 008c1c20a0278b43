"""The identity of a model is that of its parameters, whatever wraps it; what isn't trained may lie there otherwise."""

from __future__ import annotations

from typing import Any

import torch

from vaultlayer_hf.state.model_identity import (
    Comparison,
    ModelIdentity,
    compare_parameters,
    identity_of,
    joined,
)


def compared(then: torch.nn.Module, now: torch.nn.Module, *, adapter: bool = False) -> Comparison:
    return compare_parameters(identity_of(then).parameters, identity_of(now, adapter=adapter))


def net(*, frozen: bool = True, dtype: Any = torch.float32, width: int = 3) -> torch.nn.Sequential:
    """A base of one layer, frozen or not, and a trained head."""
    base, head = torch.nn.Linear(2, width).to(dtype), torch.nn.Linear(3, 1)
    return torch.nn.Sequential(base.requires_grad_(not frozen), head)


class Packed(torch.nn.Module):
    """A layer whose weights are no parameters, as some kinds of quantisation have it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(2, 3, dtype=torch.int8))


def test_compiled_model_is_the_same_model() -> None:
    """A model and torch.compile of it don't differ, whichever of the two the checkpoint was made with."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    compiled: Any = torch.compile(model, backend="eager")
    assert identity_of(model).parameters != identity_of(compiled).parameters
    assert compared(model, compiled) == compared(compiled, model) == Comparison()


def test_compiled_model_of_another_shape_differs() -> None:
    """Another shape is named even where only one of the two models is compiled."""
    compiled: Any = torch.compile(torch.nn.Linear(2, 3), backend="eager")
    assert "weight is 3x2 float32 in the checkpoint" in compared(compiled, torch.nn.Linear(2, 4)).refusal


def test_what_is_not_trained_may_have_another_dtype() -> None:
    """Another dtype of a frozen layer is remarked, and refused of a trained one."""
    found = compared(net(), net(dtype=torch.bfloat16))
    assert found.refusal == ""
    assert "0.weight is 3x2 float32 in the checkpoint, 3x2 bfloat16 in the model" in found.remark
    assert "0.weight" in compared(net(), net(frozen=False, dtype=torch.bfloat16)).refusal


def test_a_frozen_layer_of_another_shape_is_another_model() -> None:
    """The same dtype in another shape is refused, frozen or not, under an adapter or not."""
    for adapter in (False, True):
        assert "0.weight is 3x2" in compared(net(), net(width=4), adapter=adapter).refusal


def test_under_an_adapter_the_base_may_be_packed() -> None:
    """A base whose weights are of another shape and dtype, or no parameters at all, is remarked; both ways."""
    packed = torch.nn.Sequential(Packed(), torch.nn.Linear(3, 1))
    for then, now in ((net(), packed), (packed, net())):
        found = compared(then, now, adapter=True)
        assert found.refusal == ""
        assert "0.weight is only in the" in found.remark
        assert "0.weight is only in the" in compared(then, now).refusal  # its checkpoint would lack it
    of_bits = ModelIdentity((("0.weight", (3, 1), "uint8"),), frozenset({"0.weight", "0"}), adapter=True)
    assert compare_parameters((("0.weight", (3, 2), "float32"),), of_bits).refusal == ""


def test_an_adapter_on_other_layers_is_another_model() -> None:
    """A layer that only one of the two has at all, or that is trained, is refused under an adapter, too."""
    longer = torch.nn.Sequential(*net(), torch.nn.Linear(1, 1).requires_grad_(False))
    assert "2.weight is only in the checkpoint" in compared(longer, net(), adapter=True).refusal
    assert "1.weight is only in the checkpoint" in compared(net(), net()[:1], adapter=True).refusal


def test_models_side_by_side_keep_their_own_names() -> None:
    """Of several models in one checkpoint each has its prefix, also in what isn't trained."""
    both = joined([identity_of(net()), identity_of(torch.nn.Linear(2, 2).half()).within("ema/")])
    assert [name for name, _, _ in both.parameters][-2:] == ["ema/bias", "ema/weight"]
    assert both.is_frozen("0.weight")
    assert not both.is_frozen("ema/weight")
    assert identity_of(torch.nn.Linear(2, 2).requires_grad_(False)).within("ema/").is_frozen("ema/weight")


def test_a_model_that_was_prepared_twice_is_told_so() -> None:
    """A notebook's cell that calls prepare() again adds to its Accelerator: that is said, and what to call."""
    then, again = identity_of(net()), identity_of(net()).within("1/")
    found = compare_parameters(then.parameters, joined([then, again])).refusal
    assert "1 model(s) more" in found
    assert "free_memory()" in found
    wider = identity_of(net(width=4))
    assert "only in the model" in compare_parameters(then.parameters, joined([wider, again])).refusal
