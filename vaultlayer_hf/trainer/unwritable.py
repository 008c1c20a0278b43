"""What of a Trainer's state JSON can't hold, in words: a save that fails on it says only the value's type.

Whatever a script logs goes into ``state.log_history``, and every later save writes that into trainer_state.json. One
numpy number or tensor among it ends the training there with "Object of type float32 is not JSON serializable", after
the weights were written, and long after the line that logged it. That is stock's, and it stays so: what a script logs
isn't changed. The error gets a note that says which value it is and what to write instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vaultlayer_hf.trainer.layout import STATE

_FIELDS = ("log_history", "stateful_callbacks", "trial_params", "best_metric")
"""Fields of a TrainerState that hold what comes from a script."""


def name_unwritable(error: Exception, state: Any) -> None:
    """Add to an error of a save what in the Trainer's state JSON can't hold; nothing where there is no such thing."""
    try:
        found = next(_unwritable(state), None)
    except Exception:  # a script's own object may raise whatever it is asked
        return
    if found is not None and not any(STATE in note for note in getattr(error, "__notes__", ())):
        error.add_note(f"{STATE} can't be written: {found}")


def _unwritable(state: Any) -> Iterator[str]:
    """Yield each such value in words: where it is, what it is, and what to do."""
    for field in _FIELDS:
        for path, value in _parts(getattr(state, field, None), ()):
            if field == "log_history":
                entry = state.log_history[path[0]]
                where = f"{_dotted(path[1:])}, logged at step {entry.get('step', 'unknown')},"
            else:
                where = f"{_dotted((field, *path))}"
            yield f"{where} is a {_kind(value)}, which JSON can't hold. {_remedy(value, field)}"


def _parts(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the values within a value that JSON can't hold, each with the way to it."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                yield (*path, "a key"), key
            yield from _parts(one, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _parts(one, (*path, number))
    else:
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            yield path, value


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _remedy(value: Any, field: str) -> str:
    """Say what to write instead."""
    if hasattr(value, "item") and hasattr(value, "tolist"):  # of numpy, torch and what is built like them
        single = getattr(value, "size", None) == 1 or (
            callable(getattr(value, "numel", None)) and value.numel() == 1
        )
        made = "value.item()" if single else "value.tolist()"
    else:
        made = "a number or a text made of it"
    what = "Log" if field == "log_history" else "Keep"
    return f"{what} {made} instead, or leave it out"
