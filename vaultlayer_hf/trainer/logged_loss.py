"""The loss that a Trainer has summed up since its last log, kept with each checkpoint, so that its logs go on as well.

A Trainer logs the mean loss of the steps since the last log, and in the end that of all steps. It keeps neither sum
in a checkpoint: behind a resume the first loss logged is a mean over fewer steps, and ``train_loss`` leaves out what
was summed up before. The sums have no public name:

- ``_total_loss_scalar`` and ``_globalstep_last_logged``, attributes in all versions, set right ahead of on_train_begin;
- the sum since the last log: a local of the loop, ``tr_loss``, up to 5.2 (``_maybe_log_save_evaluate`` gets it as an
  argument of the same name), ``_tr_loss`` from 5.3 on. It is one tensor, which the loop adds to: filled in place it is
  where the loop looks for it.
- ``_initial_global_step``: where there is one, ``train_loss`` is the mean of this train()'s steps alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vaultlayer_hf.trainer.loop_locals import local_of_loop
from vaultlayer_hf.trainer.wrapping import wrapped


@dataclass(frozen=True)
class LossSums:
    """What a Trainer has summed up, on one rank.

    Attributes:
        pending: the sum since the last log, of this rank.
        total: the sum up to the last log, over ``since`` and later steps, the mean of all ranks.
        logged_at: step of the last log.
        since: the step behind which ``total`` begins.
    """

    pending: float
    total: float
    logged_at: int
    since: int = 0


def sums_from(kept: dict[str, Any] | None) -> LossSums | None:
    """Return what ``LoggedLoss.take`` has made a dictionary of; None where a later version keeps other sums."""
    try:
        return LossSums(**kept) if kept is not None else None
    except TypeError:
        return None


class LoggedLoss:
    """One Trainer's sums, while it trains: taken for a checkpoint, and put back behind a resume.

    Args:
        trainer: that trains; ``on_train_begin`` is being called.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._since = int(trainer.state.global_step)
        self._wraps = ExitStack()

    def take(self) -> dict[str, Any] | None:
        """Return the sums as a dictionary of numbers; None where this Trainer keeps none that are known here."""
        pending = self.pending()
        if pending is None:
            return None
        trainer = self._trainer
        sums = LossSums(
            pending.item(),
            float(trainer._total_loss_scalar),
            int(trainer._globalstep_last_logged),
            self._since,
        )
        return asdict(sums)

    def put(self, sums: LossSums) -> None:
        """Go on from sums of a checkpoint; called ahead of the first step."""
        pending, trainer = self.pending(), self._trainer
        if pending is None:
            return
        pending.fill_(sums.pending)
        trainer._total_loss_scalar, trainer._globalstep_last_logged = sums.total, sums.logged_at
        self._since = sums.since
        if hasattr(trainer, "_initial_global_step"):
            self._wraps.enter_context(wrapped(trainer, {"_finalize_training": self._over_all_steps}))

    def put_back(self) -> None:
        """Leave the Trainer as it was. Safe to call twice."""
        self._wraps.close()

    def pending(self) -> torch.Tensor | None:
        """Return the sum since the last log, as the loop holds it; None where it isn't known here."""
        trainer = self._trainer
        if not hasattr(trainer, "_total_loss_scalar") or not hasattr(trainer, "_globalstep_last_logged"):
            return None
        local = local_of_loop(trainer, "tr_loss", torch.Tensor)
        if local is not None:
            return local  # type: ignore[no-any-return] # of the kind that is asked for
        own = getattr(trainer, "_tr_loss", None)
        return own if isinstance(own, torch.Tensor) else None

    def _over_all_steps(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Have ``train_loss``, which is divided by the steps of this train(), be the mean over all steps."""

        def _finalize_training(*args: Any, **kwargs: Any) -> Any:
            trainer, pending = self._trainer, self.pending()
            steps = trainer.state.global_step - trainer._initial_global_step
            if pending is not None and steps > 0:
                total = trainer._total_loss_scalar + pending.item()
                pending.zero_()
                mean = total / (trainer.state.global_step - self._since)
                trainer._total_loss_scalar = _times(mean, steps)
            return original(*args, **kwargs)

        return _finalize_training


def _times(mean: float, steps: int) -> float:
    """Return the number that divided by ``steps`` is ``mean``, to the last bit where there is one."""
    product = mean * steps
    near = (product, math.nextafter(product, math.inf), math.nextafter(product, -math.inf))
    return next((one for one in near if one / steps == mean), product)
