"""Generators and counters of the data that a Trainer evaluates on: each evaluation goes on where the one before ended.

A data set that draws its augmentation, or counts what it was asked for, gives the metrics by which a checkpoint is the
best one, a rate is lowered, or the training stops. Each start makes it anew.
"""

from __future__ import annotations

import contextlib
from typing import Any

from vaultlayer_hf.state.data.inner import Inner, InnerState, data_sets
from vaultlayer_hf.state.data.sources import unwrapped


class EvaluationData:
    """What the data of the evaluations hold; of what they share with the training's, the place in these wins.

    Args:
        trainer: whose ``eval_dataset`` it is: one, or a dictionary of them; None where it isn't known.
        dataset: of the training: it isn't looked at, nor what it has wrapped.
    """

    def __init__(self, trainer: Any, dataset: Any) -> None:
        self._inner: Inner | None = None
        found = getattr(trainer, "eval_dataset", None)
        named = found if isinstance(found, dict) else {"": found}
        with contextlib.suppress(Exception):  # of objects of the script's own
            training = {id(one) for one in data_sets(dataset)}
            things = {f"evaluation {name}": unwrapped(one) for name, one in named.items()}
            self._inner = Inner(**{name: one for name, one in things.items() if id(one) not in training})

    def state_dict(self) -> InnerState:
        """Return the states of generators, and the numbers that have moved."""
        with contextlib.suppress(Exception):  # of objects of the script's own
            return self._inner.take() if self._inner is not None else {}
        return {}

    def load_state_dict(self, state: InnerState) -> None:
        """Put back what ``state_dict`` has returned, where there still is such a place."""
        with contextlib.suppress(Exception):  # of objects of the script's own
            if self._inner is not None:
                self._inner.put(state)
