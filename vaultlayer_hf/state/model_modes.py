"""Flags of a model that its state_dict leaves out and a training may change: frozen or not, training or evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vaultlayer_hf.state.tensor_digests import plain_name

if TYPE_CHECKING:
    import torch

Modes = Mapping[str, Mapping[str, bool]]
"""``requires_grad`` by parameter and ``training`` by module."""


def take_modes(model: torch.nn.Module) -> dict[str, dict[str, bool]]:
    """Return the flags of a model now."""
    return {
        "requires_grad": {plain_name(name): one.requires_grad for name, one in model.named_parameters()},
        "training": take_training(model),
    }


def put_modes(model: torch.nn.Module, modes: Modes) -> list[str]:
    """Set the flags as they were, and return the parameters whose flag was another one.

    What the model hasn't got, or the flags don't name, stays as it is.
    """
    changed = []
    for name, parameter in model.named_parameters():
        trained = modes["requires_grad"].get(plain_name(name), parameter.requires_grad)
        if trained != parameter.requires_grad:
            parameter.requires_grad_(trained)
            changed.append(name)
    put_training(model, modes["training"])
    return changed


def take_training(model: torch.nn.Module) -> dict[str, bool]:
    """Return which modules of a model are in training mode, by name; the model itself is ``""``."""
    return {plain_name(name): one.training for name, one in model.named_modules()}


def put_training(model: torch.nn.Module, training: Mapping[str, bool]) -> None:
    """Set the modules' modes as they were; modules that ``training`` doesn't name stay as they are."""
    for name, module in model.named_modules():
        module.training = training.get(plain_name(name), module.training)
