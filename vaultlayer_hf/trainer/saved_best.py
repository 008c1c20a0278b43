"""The best checkpoint, where a save is lost: it is again the best of those that are there.

A Trainer notes a better metric ahead of the save, and keeps it where the save comes to nothing. Every later checkpoint
would be compared with one that isn't there, and ``load_best_model_at_end`` would load an older one than it could have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.trainer.layout import best_step


@dataclass(frozen=True)
class Best:
    """What a Trainer's state holds of its best.

    Attributes:
        metric: the best so far; None before the first evaluation.
        step: at which it was found.
        checkpoint: the folder of the best one that was saved, as the state has it.
    """

    metric: float | None
    step: int | None
    checkpoint: str | None

    @classmethod
    def of(cls, state: Any) -> Best:
        """Return that of a Trainer's state."""
        return cls(state.best_metric, getattr(state, "best_global_step", None), state.best_model_checkpoint)

    def without(self, step: int, before: Best) -> Best:
        """Return what is the best where the checkpoint of a step is lost; ``before``: as it was at the save before it.

        >>> Best(0.7, 4, "o/checkpoint-4").without(4, Best(0.5, 2, "o/checkpoint-2"))
        Best(metric=0.5, step=2, checkpoint='o/checkpoint-2')
        """
        found = before if self.step == step else self
        named = self.checkpoint if saved_step(self) != step else before.checkpoint
        return Best(found.metric, found.step, named)


def saved_step(best: Best) -> int | None:
    """Return the step of the best checkpoint that was saved; None where there is none. Pure."""
    return best_step({"best_model_checkpoint": best.checkpoint})


class SavedBest:
    """The best checkpoint of one training, through its saves. All ranks alike.

    Args:
        trainer: whose state holds it.
        session: of this rank; its events say at the end that another one was loaded than could have been.
    """

    def __init__(self, trainer: Any, session: Session) -> None:
        self._trainer, self._session = trainer, session
        self._kept = self.now()
        self._lost: Best | None = None

    def now(self) -> Best:
        """Return what the state holds."""
        return Best.of(self._trainer.state)

    def keep(self, best: Best) -> None:
        """Take note that a save is done, at which this was the best."""
        self._kept = best

    def lose(self, step: int) -> None:
        """Have the state's best be one that is there, where the checkpoint of this step is lost."""
        state, now = self._trainer.state, self.now()
        if now.step == step and (self._lost is None or self._is_better(now.metric, self._lost.metric)):
            self._lost = now
        left = now.without(step, self._kept)
        state.best_metric, state.best_model_checkpoint = left.metric, left.checkpoint
        if now.step is not None:
            state.best_global_step = left.step

    def say_lost(self) -> None:
        """Say, where the end loads a model, that a better one couldn't be saved; nothing where none was better."""
        lost, now = self._lost, self.now()
        taken = saved_step(now)
        figure = self._figure(now, taken)
        if (
            lost is None
            or lost.metric is None
            or (figure is not None and not self._is_better(lost.metric, figure))
        ):
            return
        name = self._trainer.args.metric_for_best_model
        at = "" if figure is None else f" ({name} {figure:.4g})"
        loads = (
            f"load_best_model_at_end takes checkpoint-{taken}{at}"
            if taken is not None
            else "load_best_model_at_end has none to take, so the model stays as its last step has left it"
        )
        self._session.warn_all(
            EventKind.NOTICE,
            f"the best ({name} {lost.metric:.4g} at step {lost.step}) couldn't be saved: {loads}",
            step=lost.step,
        )

    def _is_better(self, one: float | None, other: float | None) -> bool:
        if one is None or other is None:
            return one is not None
        return one > other if self._trainer.args.greater_is_better else one < other

    def _figure(self, now: Best, taken: int | None) -> float | None:
        """Return the metric of a checkpoint; None where it isn't known."""
        if taken is not None and now.step == taken:
            return now.metric
        name = f"eval_{str(self._trainer.args.metric_for_best_model).removeprefix('eval_')}"
        logged = [
            one[name] for one in self._trainer.state.log_history if one.get("step") == taken and name in one
        ]
        return logged[-1] if logged else None
