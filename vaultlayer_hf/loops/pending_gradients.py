"""Gradients that no optimizer has used yet: of a save that falls between two batches of one update.

Each step of an optimizer marks the gradients that it has used. What is there without a mark, or was added to since, is
still to be used by the update under way, so it goes with the checkpoint: each rank has its own until they are averaged.

An update that a loop, or its gradient scaler, has left out uses none either, and nothing tells its gradients from those
of an update under way, but that most updates are left out because a gradient isn't finite. No optimizer gets anything
out of such ones, so these aren't given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from vaultlayer_hf.loops.step_hook import after_each_step
from vaultlayer_hf.state.capture.stepped import has_step_hooks
from vaultlayer_hf.state.tensor_digests import local_part

_MARK = "_vaultlayer_used"
"""Attribute of a gradient: which version of its content the newest step has used."""
_WITHIN = "the checkpoint was saved between two batches of one update, with gradients of"


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
        self._hook = after_each_step(_mark)

    def leave(self) -> None:
        """Mark no more."""
        if self._hook is not None:
            self._hook.remove()

    def clear(self) -> None:
        """Have no gradients, as a new process: those of a step that was broken off belong to nothing."""
        for _, one in self._parameters():
            one.grad = None

    @property
    def exist(self) -> bool:
        """Whether there are some on this rank that aren't zero, as far as they lie where torch keeps gradients."""
        return any(_any(gradient) for _, gradient in self._pending())

    def state_dict(self) -> dict[str, torch.Tensor | None]:
        """Return copies of them by their places in the optimizers; None for one that is zero."""
        # In the host's memory: the device's may have no room for as much again.
        return {
            place: gradient.detach().to("cpu", copy=True) if _any(gradient) else None
            for place, gradient in self._pending()
        }

    def load_state_dict(self, state: Mapping[str, torch.Tensor | None], *, same: bool = True) -> list[str]:
        """Give the parameters these gradients. Return in words what speaks against an unbroken run's numbers.

        ``same``: as many ranks have saved them as there are now; else only those that are zero are given.
        """
        now = dict(self._parameters())
        unfit = {
            _number_of(place) for place, value in state.items() if value is not None and not _finite(value)
        }
        others = False
        for place, value in state.items():
            one = now.get(place)
            if value is None:
                if one is not None:
                    one.grad = torch.zeros_like(one)
            elif _number_of(place) not in unfit and same:
                if one is None or value.shape != one.shape:
                    others = True
                else:
                    one.grad = value.to(one.device, copy=True)
        doubts = [f"{_WITHIN} other parameters"] * others
        if not same and any(value is not None for value in state.values()):
            doubts.append(f"{_WITHIN} another number of ranks")
        elif unfit:
            doubts.append(
                "the checkpoint was saved with gradients that aren't finite and that no update has used: they are "
                "dropped, as a zero_grad() right after step() would have dropped them"
            )
        return doubts

    def _pending(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the gradients that no step has used; one that was made in inference mode tells no version."""
        for place, one in self._parameters():
            gradient = one.grad
            if gradient is None or gradient.is_inference():
                continue
            if getattr(gradient, _MARK, None) != gradient._version:
                yield place, gradient

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


def _number_of(place: str) -> str:
    """Return the number of the optimizer of a gradient's place: what it leaves out, it leaves out of all of these."""
    return place.partition("/")[0]


def _mark(optimizer: Any, *_: Any) -> None:
    for group in optimizer.param_groups:
        for one in group["params"]:
            if (gradient := one.grad) is not None and not gradient.is_inference():
                setattr(gradient, _MARK, gradient._version)


def _any(gradient: torch.Tensor) -> bool:
    return bool(_values(gradient).any())


def _finite(gradient: torch.Tensor) -> bool:
    return bool(_values(gradient).isfinite().all())


def _values(gradient: torch.Tensor) -> torch.Tensor:
    gradient = local_part(
        gradient
    )  # of one that is spread over ranks this rank's part: nobody waits for another
    return gradient.coalesce().values() if gradient.is_sparse else gradient
