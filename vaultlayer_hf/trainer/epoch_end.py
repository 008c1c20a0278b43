"""The end of an epoch behind whose last step the checkpoint was saved: it is done ahead of the next epoch.

A save by steps comes ahead of what is done at an epoch's end, where both fall on one step, and a resume from there
begins with the next epoch. So callbacks that lower a rate then, thaw a layer or count epochs wouldn't be called, and an
evaluation by epochs, which early stopping counts, wouldn't be made: the Trainer leaves that out without a word.
"""

from __future__ import annotations

import time
from typing import Any

from vaultlayer_hf.trainer.loop_locals import local_of_loop


def begins_next_epoch(trainer: Any) -> bool:
    """Tell whether the loop goes on with an epoch's first batch: it ends none before. Within ``on_train_begin``."""
    return bool(local_of_loop(trainer, "steps_trained_in_current_epoch", int) == 0)


def end_epoch(trainer: Any, loss: Any) -> None:
    """Do what the Trainer does at the end of an epoch. Raises what its callbacks and its evaluation raise.

    Args:
        trainer: about to begin the next one.
        loss: the sum since the last log, as the loop holds it.
    """
    handler, args, state = trainer.callback_handler, trainer.args, trainer.state
    trainer.control = handler.on_epoch_end(args, state, trainer.control)
    trainer.control.should_save = False  # it goes on from the checkpoint of this step
    ignored = local_of_loop(trainer, "ignore_keys_for_eval", list)
    trainer._maybe_log_save_evaluate(
        loss, None, trainer.model_wrapped, None, state.epoch, ignored, time.time()
    )
