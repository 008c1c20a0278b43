"""Gradients that a loop hands on from one step to the next, because it never sets them to zero.

ckpt.add("gradients", Checkpointer.gradients(model))
"""

from __future__ import annotations

from typing import Any

import torch


class KeptGradients:
    """The gradients of a model's parameters, with a ``state_dict``.

    Args:
        model: its parameters keep their order.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients of those parameters that have one."""
        named = self._model.named_parameters()
        return {name: one.grad.detach().clone() for name, one in named if one.grad is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give the parameters these gradients, and no others."""
        for name, one in self._model.named_parameters():
            one.grad = state[name].to(one.device, copy=True) if name in state else None
