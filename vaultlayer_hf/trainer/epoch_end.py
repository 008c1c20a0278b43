"""The end of an epoch behind whose last step the checkpoint was saved: it is done ahead of the next epoch.

A save by steps comes ahead of what is done at an epoch's end, where both fall on one step, and a resume from there
begins with the next epoch. So callbacks that lower a rate then, thaw a layer or count epochs wouldn't be called, and an
evaluation by epochs, which early stopping counts, wouldn't be made: the Trainer leaves that out without a word.

This process hasn't begun that epoch. A callback that goes by what its ``on_epoch_begin`` makes, such as a bar on the
screen, fails at its end, and it would at each further start: it is left out, and named. Only what Python raises where
something isn't there counts as that: any other error may be raised on purpose, as a tuner ends a trial. So may be a
ValueError or a TypeError that a ``raise`` statement of the script itself raises, as a guard of its metric does.
"""

from __future__ import annotations

import copy
import dis
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.state.data.guard import reason_of
from vaultlayer_hf.state.object_kinds import OURS, is_own_file
from vaultlayer_hf.trainer.layout import best_step
from vaultlayer_hf.trainer.loop_locals import local_of_loop
from vaultlayer_hf.trainer.wrapping import wrapped

_EVENTS = ("on_epoch_end", "on_evaluate", "on_log", "on_prediction_step")
"""What callbacks are told at an epoch's end."""
_FIGURES = ("grad_norm", "learning_rate")
_LACKING = (AttributeError, LookupError, NameError, TypeError, ValueError, ZeroDivisionError)
"""What Python raises where an attribute, an item or a variable isn't there, is None, or is empty."""


def begins_next_epoch(trainer: Any) -> bool:
    """Tell whether the loop goes on with an epoch's first batch: it ends none before. Within ``on_train_begin``."""
    return bool(local_of_loop(trainer, "steps_trained_in_current_epoch", int) == 0)


def figures_of_step(trainer: Any) -> dict[str, float]:
    """Return what the loop alone knows of its newest step, of what an epoch's end may log. Within a save."""
    found = {name: local_of_loop(trainer, name, (int, float, torch.Tensor)) for name in _FIGURES}
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    # A tensor that is spread over ranks has a class of its own: all of them would have to be asked together.
    return isinstance(value, (int, float)) or (type(value) is torch.Tensor and value.numel() == 1)


def end_epoch(trainer: Any, loss: Any, figures: Mapping[str, float], events: Events) -> None:
    """Do what the Trainer does at the end of an epoch.

    Raises what its evaluation raises, what a callback raises on purpose, and VaultLayerError.

    Args:
        trainer: about to begin the next one.
        loss: the sum since the last log, as the loop holds it.
        figures: as ``figures_of_step`` had them at the save; what is missing isn't logged.
        events: where it is told that a callback has failed.
    """
    handler, args, state = trainer.callback_handler, trainer.args, trainer.state
    with wrapped(handler, {"call_event": lambda original: _each_alone(handler, original, events)}):
        trainer.control = handler.on_epoch_end(args, state, trainer.control)
        trainer.control.should_save = False  # it goes on from the checkpoint of this step
        ignored = local_of_loop(trainer, "ignore_keys_for_eval", list)
        norm, rate = (figures.get(name) for name in _FIGURES)
        with wrapped(trainer, {} if rate is not None else {"log": _without_rate}):
            # No time at its begin: figures per second would be of no training at all.
            trainer._maybe_log_save_evaluate(
                loss, norm, trainer.model_wrapped, None, state.epoch, ignored, None, learning_rate=rate
            )


def save_best(trainer: Any) -> None:
    """Save once more where training ends with an evaluation that has found this step the best.

    Stock notes the best checkpoint in a save alone, so neither this start nor a later one would load it at the end.
    """
    state, handler = trainer.state, trainer.callback_handler
    noted = best_step({"best_model_checkpoint": state.best_model_checkpoint})
    if getattr(state, "best_global_step", None) == state.global_step and noted != state.global_step:
        trainer._save_checkpoint(trainer.model, None)
        trainer.control = handler.on_save(trainer.args, state, trainer.control)


def _without_rate(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have no rate logged: the Trainer takes that of the next step where it isn't given the last one's."""

    def log(logs: dict[str, float], *args: Any, **kwargs: Any) -> Any:
        logs.pop(_FIGURES[1], None)
        return original(logs, *args, **kwargs)

    return log


def _each_alone(handler: Any, original: Callable[..., Any], events: Events) -> Callable[..., Any]:
    """Have a handler's callbacks called so that one that lacks something keeps neither the others nor the training."""

    def call_event(event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if event not in _EVENTS:
            return original(event, args, state, control, **kwargs)
        for callback in list(handler.callbacks):
            alone = copy.copy(handler)
            alone.callbacks = [callback]
            try:
                control = type(handler).call_event(alone, event, args, state, control, **kwargs)
            except _LACKING as error:
                of_python = type(error).__module__ in sys.stdlib_module_names
                if (
                    not of_python
                    or raised_on_purpose(error)
                    or type(callback).__module__.partition(".")[0] == OURS
                ):
                    raise
                _say_left_out(events, f"{type(callback).__name__}.{event}", error)
        return control

    return call_event


def raised_on_purpose(error: Exception) -> bool:
    """Tell whether a ``raise`` statement of the script has raised a ValueError or TypeError, and not what it called.

    An AttributeError or KeyError isn't asked for: a ``__getattr__`` raises them by such a statement, too.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or type(error) not in (ValueError, TypeError):
        return False
    code = at.tb_frame.f_code
    return is_own_file(code.co_filename) and code.co_code[at.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _say_left_out(events: Events, name: str, error: Exception) -> None:
    events.warn_once(
        f"owed {name}",
        EventKind.INEXACT,
        f"{name} raised {reason_of(error)}, and is left out. The checkpoint was saved at the last step of an epoch, "
        "ahead of what is done at the epoch's end. That is done now, by a process that hasn't begun the epoch: what "
        "on_epoch_begin and the steps make isn't there. If what it does changes the training, the numbers differ from "
        "an unbroken run's",
    )
