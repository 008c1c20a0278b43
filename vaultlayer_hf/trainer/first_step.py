"""Between the begin of a training that goes on and its first step: what stock does there a second time.

The Trainer calls ``on_epoch_begin`` in the middle of an epoch, too, where a resume goes on in it: a callback that
counts within an epoch begins to count anew, one that makes a layer anew at each epoch does so there, and one that
trains more layers from some epoch on may do so too early. And ``eval_on_start`` evaluates at each start: early stopping
would count one evaluation more than in an unbroken run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.saved_digests import read_digests, state_differences
from vaultlayer_hf.trainer.own_state import OwnState
from vaultlayer_hf.trainer.trained import Trained

_SHOWN = 3
"""Names that a message holds, at most."""


class FirstStep(TrainerCallback):
    """Leaves out the evaluation at the start, and compares the weights once more ahead of the first step.

    Args:
        session: of the run.
        handler: the Trainer's.
        args: of the Trainer; ``eval_on_start`` is False in them until the first step.
        trained: what is trained.
        folder: of the checkpoint that the training goes on from.
        own: what the script's own objects hold; None where it isn't followed.
        within: whether an unbroken run is in the middle of an epoch here.
    """

    def __init__(
        self,
        session: Session,
        handler: CallbackHandler,
        args: TrainingArguments,
        trained: Trained,
        folder: Path,
        own: OwnState | None,
        *,
        within: bool,
    ) -> None:
        self._session, self._handler, self._args = session, handler, args
        self._trained, self._folder = trained, folder
        self._own, self._within = own, within
        self._evaluates = args.eval_on_start
        args.eval_on_start = False
        self._last = _Last(own if within else None)
        # What others do at each step's begin belongs to the step, what they do at an epoch's begin doesn't.
        handler.callbacks = [self, *handler.callbacks, self._last]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have trained again what was, say which weights aren't what was loaded any more, and leave."""
        self.leave()
        if not self._within:
            return
        if self._own is not None:
            self._own.parts.put_flags()
        try:
            saved = read_digests(self._folder, self._session.ranks.rank)
            world_size = self._session.ranks.world_size
            if saved is None or not saved.comparable(world_size):
                return
            names = state_differences(saved, self._trained.digests(world_size)).get("model", [])
        except Exception:  # a user's model may hold what can't be read
            return
        if names and self._session.ranks.rank == 0:
            more = len(names) - _SHOWN
            self._session.events.warn(
                EventKind.INEXACT,
                f"{', '.join(names[:_SHOWN])}{f' and {more} more' if more > 0 else ''} of the model were changed "
                "between the load and the first step, so the numbers differ from an unbroken run's: the Trainer calls "
                "on_epoch_begin also where a resume goes on in the middle of an epoch. A callback can tell by "
                "state.epoch, which is no whole number there",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave: a step that goes on in the middle of its batches has no begin, and has changed the weights."""
        self.leave()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave: the epoch had no step left, and what the next one begins anew isn't put back."""
        self.leave()
        if self._own is not None and self._within:
            self._own.parts.put_flags()

    def leave(self) -> None:
        """Put back what was changed. Safe to call twice."""
        if self._evaluates:
            self._args.eval_on_start = True
        self._handler.callbacks = [
            one for one in self._handler.callbacks if one is not self and one is not self._last
        ]


class _Last(TrainerCallback):
    """Puts back what others have begun to count anew."""

    def __init__(self, own: OwnState | None) -> None:
        self._own = own

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._own is not None:
            self._own.put_again()


def is_within_epoch(state: TrainerState) -> bool:
    """Tell whether an unbroken run is in the middle of an epoch here. Pure."""
    return bool(state.epoch) and not float(state.epoch or 0.0).is_integer()
