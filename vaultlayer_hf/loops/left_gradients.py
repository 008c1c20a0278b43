"""Gradients of parameters that no optimizer trains: ``optimizer.zero_grad()`` leaves them, so they grow with each step.

They count where their norm is clipped with the others', and where the parameters are given to the optimizer later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from vaultlayer_hf.state.object_files import read_state

FILE = "left_gradients.pt"


def left_gradients(
    models: Mapping[str, torch.nn.Module], optimizers: Iterable[Any]
) -> dict[str, torch.Tensor]:
    """Return copies of them by the parameters' names; nothing where no optimizer tells what it trains."""
    groups = [group for one in optimizers for group in getattr(one, "param_groups", ())]
    trained = {id(one) for group in groups for one in group["params"]}
    return {
        f"{prefix}{name}": one.grad.detach().clone()
        for prefix, model in models.items()
        for name, one in model.named_parameters()
        if groups and one.grad is not None and id(one) not in trained
    }


def load_left_gradients(folder: Path, models: Mapping[str, torch.nn.Module]) -> None:
    """Give the parameters that still have these names their gradients. Raises ResumeError."""
    saved = read_state(folder / FILE) if (folder / FILE).exists() else {}
    for prefix, model in models.items():
        for name, one in model.named_parameters():
            if f"{prefix}{name}" in saved:
                one.grad = saved[f"{prefix}{name}"].to(one.device, one.dtype)
