"""What callbacks had counted when a checkpoint was saved, put back into them when a run goes on from it.

The Trainer writes the state of its stateful callbacks (EarlyStoppingCallback's patience, say) into each checkpoint, but
reads it only where ``restore_callback_states_from_checkpoint`` asks for that. Without it a run that was broken off in
the patience of its early stopping begins to count anew, and so ends at another step than an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, ExportableState

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session


def restore_from(
    session: Session, handler: CallbackHandler | None, args: TrainingArguments, state: TrainerState
) -> None:
    """Put back what the loaded state holds of a Trainer's callbacks, unless the Trainer itself has done it. All ranks.

    ``handler``: the Trainer's; None where it can't be found.
    """
    # transformers declares a list, and holds a dictionary once it is read.
    saved: Any = state.stateful_callbacks
    if handler is not None and isinstance(saved, dict):
        saved = dict(saved)
        _make_places(handler.callbacks, state.stateful_callbacks)
    if handler is None or not isinstance(saved, dict) or args.restore_callback_states_from_checkpoint:
        return
    restore_callback_states(handler.callbacks, saved, lambda text: session.warn_all(EventKind.NOTICE, text))


def _make_places(callbacks: Iterable[Any], saved: Any) -> None:
    """Have a place for each callback's state: stock's next save fails on one that the checkpoint didn't have."""
    for one in callbacks:
        if isinstance(one, ExportableState) and type(one).__name__ not in saved:
            saved[type(one).__name__] = one.state()


def restore_callback_states(
    callbacks: Iterable[Any], saved: dict[str, Any], warn: Callable[[str], None]
) -> None:
    """Put the saved attributes into the callbacks, which stay the same objects. What can't be put back is said.

    What a callback was made with (its ``args``, such as the patience itself) stays as the script has it now.

    Args:
        callbacks: the Trainer's, in their order; those that aren't an ExportableState are left alone.
        saved: ``TrainerState.stateful_callbacks``: by a class's name one state, or a list where there were several.
        warn: told of each class whose state isn't back, or isn't whole.
    """
    by_class: dict[str, list[Any]] = {}
    for one in callbacks:
        if isinstance(one, ExportableState) and not isinstance(one, TrainerControl):
            by_class.setdefault(type(one).__name__, []).append(one)
    for name, present in by_class.items():
        if name not in saved:
            continue  # new since then: it begins as it was made
        states = _newest_states(saved[name], len(present))
        if states is None:
            warn(
                f"the checkpoint holds the state of another number of {name} than the Trainer has now, so each of them "
                "begins anew: give the Trainer the same callbacks to go on as before"
            )
            continue
        for callback, state in zip(present, states, strict=True):
            _restore(callback, state, warn)


def _newest_states(saved: Any, count: int) -> list[Any] | None:
    """Return the states of ``count`` callbacks of one class, as the newest save left them; None where it had others.

    Where there are several, the Trainer appends their states to the list at each save and removes none, so the newest
    are the last ones.
    """
    if not isinstance(saved, list):
        return [saved] if count == 1 else None
    return saved[-count:] if count > 1 and saved and len(saved) % count == 0 else None


def _restore(callback: Any, state: Any, warn: Callable[[str], None]) -> None:
    attributes = state.get("attributes", {}) if isinstance(state, dict) else {}
    lacking = []
    for attribute, value in attributes.items():
        try:
            if not hasattr(callback, attribute):
                raise AttributeError(attribute)
            setattr(callback, attribute, value)
        except Exception:  # a property of a user's class may raise whatever it likes
            lacking.append(attribute)
    if lacking:
        warn(
            f"{type(callback).__name__} can't be given what the checkpoint holds of it, so that begins anew: "
            f"{', '.join(lacking)}"
        )
