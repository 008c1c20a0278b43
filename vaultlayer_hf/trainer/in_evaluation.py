"""A notice that comes within an evaluation: what was complete at the step before it is saved, and the training ends.

An evaluation may outlast the grace, and the steps since the last save would be lost with it. All ranks are between the
same two steps in there, so what a save would hold is complete. At each batch they can agree to leave it. One rank alone
needs no agreement, so it is taken out of wherever it is, such as a metric that takes minutes, by an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from vaultlayer_hf.session.training import Training
from vaultlayer_hf.trainer.wrapping import wrapped


class LeftError(BaseException):
    """Takes a rank out of an evaluation. No Exception, so that a metric's own ``except Exception`` doesn't keep it."""


class InEvaluation:
    """One training's evaluations.

    Args:
        trainer: whose ``_evaluate``, by which it evaluates between two steps, is ours until ``put_back``.
        training: what is told to stop.
        end: ends the training.

    Attributes:
        complete: whether the Trainer is between two steps.
        saved: the step that was saved last; None before the first.
    """

    def __init__(self, trainer: Any, training: Training, end: Callable[[Any], None]) -> None:
        self._trainer, self._training, self._end = trainer, training, end
        self.complete = False
        self.saved: int | None = None
        self._wraps = ExitStack()
        self._wraps.enter_context(wrapped(trainer, {"_evaluate": self._around}))

    def put_back(self) -> None:
        """Leave the Trainer as it was. Safe to call twice."""
        self._wraps.close()

    def batch_done(self) -> None:
        """Save and end where any rank was told to stop. All ranks, at each batch. Raises what the end raises."""
        if self.complete:
            with self._training.watch.holding_off():
                self._act()

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def _evaluate(*args: Any, **kwargs: Any) -> Any:
            state = self._trainer.state
            alone = self._training.session.ranks.world_size == 1
            if not alone or not self.complete or state.global_step >= state.max_steps:
                return original(*args, **kwargs)
            try:
                with self._training.watch.interrupting(LeftError):
                    return original(*args, **kwargs)
            except LeftError:
                self._act()
                # Nobody stops this training any more: its vault is another's.
                return original(*args, **kwargs)

        return _evaluate

    def _act(self) -> None:
        trainer, state = self._trainer, self._trainer.state
        decision = self._training.in_evaluation()
        if decision is None:
            return
        if decision.save and self.saved != state.global_step:
            trainer._save_checkpoint(trainer.model, None)
            trainer.callback_handler.on_save(trainer.args, state, trainer.control)
        if decision.stop is not None and state.global_step < state.max_steps:
            self._end(state)
