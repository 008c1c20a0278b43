"""What an optimizer's groups of parameters are trained with: learning rate, momentum, weight decay, and the like.

    ckpt.carry(lambda: {"optimizer_options": Checkpointer.options(optimizer)}, in_pass=True)

For code ahead of an epoch's batches that changes them: it runs again where a resume goes on within the epoch, and
behind it this puts them back as they were saved.
"""

from __future__ import annotations

from typing import Any

import torch


class GroupOptions:
    """The options of an optimizer's groups, with a ``state_dict``.

    Args:
        optimizer: of torch, or with its ``param_groups``; of any other nothing is kept.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return them, group by group."""
        groups = getattr(self._optimizer, "param_groups", ())
        return {"groups": [{name: one for name, one in each.items() if name != "params"} for each in groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back. A rate that is a tensor is filled in place: a schedule, or a graph, may hold it."""
        for group, saved in zip(getattr(self._optimizer, "param_groups", ()), state["groups"], strict=True):
            for name, value in saved.items():
                if isinstance(group.get(name), torch.Tensor) and isinstance(value, torch.Tensor):
                    group[name].copy_(value)
                else:
                    group[name] = value
