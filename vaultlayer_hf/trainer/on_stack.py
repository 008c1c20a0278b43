"""Who is calling: a callback is told neither of its handler nor of its Trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler


def calling_handler(callback: TrainerCallback) -> CallbackHandler | None:
    """Return the handler that is calling this callback; None where nobody on the stack is it."""
    found: CallbackHandler | None = on_stack(
        lambda one: isinstance(one, CallbackHandler) and any(other is callback for other in one.callbacks)
    )
    return found


def on_stack(fits: Callable[[Any], bool]) -> Any:
    """Return the innermost object that fits and of which a method is being called; None where there is none.

    However many methods lie between (a subclass's own, a decorator's), theirs are further out on the stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if found is not None and fits(found):
            return found
        frame = frame.f_back
    return None
