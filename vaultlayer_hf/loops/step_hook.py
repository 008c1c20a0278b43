"""Told of each step of any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle


def after_each_step(call: Callable[[Any, Any, Any], None]) -> RemovableHandle:
    """Have it called behind each step of any optimizer, with that one and the step's arguments; ``remove()`` ends it.

    Where a step is compiled torch would compile this with it: so it is kept out.
    """
    hook = torch.compiler.disable(call)  # type: ignore[no-untyped-call] # torch's own
    return register_optimizer_step_post_hook(hook)
