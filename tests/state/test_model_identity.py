"""The identity of a model is that of its parameters, whatever wraps it."""

from __future__ import annotations

import torch

from vaultlayer_hf.state.model_identity import parameter_differences, parameters_of


def test_compiled_model_is_the_same_model() -> None:
    """A model and torch.compile of it don't differ, whichever of the two the checkpoint was made with."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    plain, compiled = parameters_of(model), parameters_of(torch.compile(model, backend="eager"))
    assert plain != compiled
    assert parameter_differences(plain, compiled) == parameter_differences(compiled, plain) == ""


def test_compiled_model_of_another_shape_differs() -> None:
    """Another shape is named even where only one of the two models is compiled."""
    compiled = parameters_of(torch.compile(torch.nn.Linear(2, 3), backend="eager"))
    assert "weight is 3x2 float32 in the checkpoint" in parameter_differences(
        compiled, parameters_of(torch.nn.Linear(2, 4))
    )
