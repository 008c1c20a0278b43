"""Gradients that no optimizer has used yet: of a save that falls between two batches of one update.

Each step of an optimizer marks the gradients that it has used. What is there without a mark, or was added to since, is
still to be used by the update under way, so it goes with the checkpoint: each rank has its own until they are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from vaultlayer_hf.state.capture.stepped import has_step_hooks

_MARK = "_vaultlayer_used"
"""Attribute of a gradient: which version of its content the newest step has used."""


class PendingGradients:
    """The gradients that a training's next update begins with.

    Args:
        optimizers: returns those of the training, without accelerate's wrappers.
    """

    def __init__(self, optimizers: Callable[[], Iterable[Any]]) -> None:
        self._optimizers = optimizers
        self._hook: Any = None

    def begin(self) -> None:
        """Mark what is used from here on."""
        # By all optimizers: one that steps another within it, as SAM does, isn't called itself.
        self._hook = register_optimizer_step_post_hook(_mark)

    def leave(self) -> None:
        """Mark no more."""
        if self._hook is not None:
            self._hook.remove()

    def clear(self) -> None:
        """Have no gradients, as a new process: those of a step that was broken off belong to nothing."""
        for _, one in self._parameters():
            one.grad = None

    def state_dict(self) -> dict[str, torch.Tensor | None]:
        """Return copies of them by their places in the optimizers; None for one that is zero."""
        return {
            place: one.grad.detach().clone() if _any(one.grad) else None
            for place, one in self._parameters()
            if one.grad is not None and getattr(one.grad, _MARK, None) != one.grad._version
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor | None]) -> list[str]:
        """Give the parameters these gradients. Return the places that have none of that shape now."""
        now = dict(self._parameters())
        lost = []
        for place, value in state.items():
            one = now.get(place)
            if one is None or (value is not None and value.shape != one.shape):
                lost.append(place)
            else:
                one.grad = torch.zeros_like(one) if value is None else value.to(one.device, copy=True)
        return lost

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what is trained by optimizers whose steps are seen, each once, by its place in them."""
        seen: set[int] = set()
        for number, optimizer in enumerate(self._optimizers()):
            if not has_step_hooks(optimizer):
                continue
            for place, group in enumerate(optimizer.param_groups):
                for index, one in enumerate(group["params"]):
                    if id(one) not in seen:
                        seen.add(id(one))
                        yield f"{number}/{place}/{index}", one


def _mark(optimizer: Any, *_: Any) -> None:
    for group in optimizer.param_groups:
        for one in group["params"]:
            if (gradient := one.grad) is not None:
                setattr(gradient, _MARK, gradient._version)


def _any(gradient: torch.Tensor) -> bool:
    return bool((gradient.coalesce().values() if gradient.is_sparse else gradient).any())
