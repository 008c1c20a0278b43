"""Whether a run is over. Pure: the log and the checkpoint on one side, what is asked for on the other.

Stock transformers trains one more step from a checkpoint that is already at the end, and goes on behind an
early stop. Here a run that has ended stays ended, until more steps are asked for than it was to train then.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from vaultlayer_hf.trainer.layout import STATE, best_step


class AlreadyFinishedError(Exception):
    """The run is over already; carries the loaded state out of train()."""


@dataclass(frozen=True)
class EarlierRun:
    """What a run had come to when it is resumed.

    Attributes:
        step: of the checkpoint.
        max_steps: how many steps were asked for when the checkpoint was written.
        epochs: how many epochs were asked for then, rounded up: a checkpoint doesn't have them otherwise.
        finished: step at which the run ended, by the log; None where it didn't.
        best_step: step of the best checkpoint, or None.
        passes: how many epochs were trained, with the fraction of the one under way.
    """

    step: int
    max_steps: int
    epochs: int = 0
    finished: int | None = None
    best_step: int | None = None
    passes: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it had come to its own end; where fewer steps are asked for now, it may be over all the same."""
        return self.finished is not None or self.step >= self.max_steps

    @property
    def stopped_early(self) -> bool:
        """Whether it ended ahead of its steps and of its epochs, which fewer steps may be enough for."""
        ahead = self.finished is not None and self.step == self.finished < self.max_steps
        return ahead and not 0 < self.epochs <= self.passes

    @classmethod
    def read(cls, folder: Path, finished: int | None) -> EarlierRun:
        """Read a checkpoint folder's trainer state. Raises OSError, ValueError, KeyError."""
        state = json.loads((folder / STATE).read_text())
        epochs = math.ceil(state.get("num_train_epochs") or 0)
        step, passes = int(state["global_step"]), float(state.get("epoch") or 0)
        return cls(step, int(state["max_steps"]), epochs, finished, best_step(state), passes)


def is_over(past: EarlierRun, max_steps: int, *, loads_best: bool, epochs: float | None = None) -> bool:
    """Return whether a run of ``max_steps`` steps has nothing left to train.

    ``loads_best``: the end of training loads the best checkpoint; then a run that has ended is over also
    where its newest checkpoint is the best one and not the last step. ``epochs``: how many are asked for, where steps
    are others than they were, and more of them says nothing.
    """
    if past.step >= max_steps:
        return True
    more = max_steps > past.max_steps if epochs is None else _more_epochs(past, epochs)
    if past.finished is None or more:
        return False
    return past.step == past.finished or (loads_best and past.step == past.best_step)


def asked_steps(past: EarlierRun, max_steps: int, epochs: float) -> int:
    """Return how many steps are asked for, as far as that can be told before the data is looked at.

    ``max_steps`` wins over ``epochs`` where it is above 0, as in the Trainer.
    """
    if max_steps > 0:
        return max_steps
    return past.max_steps + 1 if _more_epochs(past, epochs) else past.max_steps


def _more_epochs(past: EarlierRun, epochs: float) -> bool:
    """Return whether more epochs are asked for than a run was to train.

    A checkpoint has these rounded up: half an epoch is one there. So of a run that has come to its last step it is told
    by what it has trained. Up to transformers 4.51 that may be less than was asked for, by one step a pass.

    >>> half, whole = EarlierRun(20, 20, 1, 20, None, 0.5), EarlierRun(250, 250, 1, 250, None, 0.999)
    >>> _more_epochs(half, 0.5), _more_epochs(half, 1), _more_epochs(whole, 1)
    (False, True, False)
    """
    if math.ceil(epochs) > past.epochs:
        return True
    if past.step < past.max_steps or not past.passes:
        return False
    return (epochs - past.passes) * past.step / past.passes > math.ceil(epochs)
