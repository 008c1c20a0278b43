"""Stands in front of whatever could change a state while it is being copied, or look for a folder that isn't there yet.

The first of the Trainer's callbacks, and in front of the optimizer's step. Other callbacks may do what they like with
the weights (an average that is swapped in for an evaluation), so the copy is over before one is asked that isn't known
to only look; and the checkpoint's folder is there before one hears that it was saved.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vaultlayer_hf.trainer.async_save.facts import may_change, plain_optimizer
from vaultlayer_hf.trainer.async_save.saves import AsyncSaves

_BETWEEN_STEPS = ("on_step_begin", "on_substep_end", "on_step_end")


class CaptureGuard(TrainerCallback):
    """The callback; see above.

    Args:
        trainer: whose first callback it becomes, until ``leave``.
        saves: whose copies it guards.

    Attributes:
        saves: as given.
    """

    def __init__(self, trainer: Any, saves: AsyncSaves) -> None:
        self.saves, copier = saves, saves.copier
        self._handler = trainer.callback_handler
        self._handler.callbacks = [self, *self._handler.callbacks]
        optimizer = plain_optimizer(trainer)
        self._hooks: list[Any] = []
        if isinstance(optimizer, torch.optim.Optimizer):
            self._hooks = [
                optimizer.register_step_pre_hook(lambda *_: copier.before_change()),
                optimizer.register_step_post_hook(lambda *_: copier.after_step()),
            ]

    def leave(self) -> None:
        """Leave the Trainer as it was, with every checkpoint there. Safe to call twice. Raises FencedError."""
        self._handler.callbacks = [one for one in self._handler.callbacks if one is not self]
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()
        self.saves.close()

    def guard(self, event: str, state: TrainerState, control: TrainerControl) -> None:
        """Do what has to be done before the other callbacks hear of an event."""
        saves = self.saves
        if event == "on_step_end":
            saves.prepare()
        if event == "on_save":
            if saves.folder_is_read:
                saves.settle(wait=True)
            return
        rest = [one for one in self._handler.callbacks if one is not self]
        saves.write()
        if event == "on_pre_optimizer_step" or any(may_change(one, event) for one in rest):
            saves.copier.before_change()
        if saves.capture is None:
            return
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if event == "on_train_end" or (ends and event in ("on_step_end", "on_epoch_end")):
            saves.settle(wait=True)
        elif event == "on_step_end" or (event in _BETWEEN_STEPS and saves.agreed.alone):
            saves.settle(wait=False)


def _method(event: str) -> Any:
    def method(
        self: CaptureGuard,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self.guard(event, state, control)

    method.__name__ = event
    return method


for _event in [name for name in dir(TrainerCallback) if name.startswith("on_")]:
    setattr(CaptureGuard, _event, _method(_event))
