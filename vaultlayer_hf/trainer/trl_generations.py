"""Generations of TRL's Trainers that were saved with another micro-batch than this start's.

`vl run` makes the micro-batch smaller where memory runs out. GRPO and RLOO generate for several micro-batches at once
and keep them as a list, one entry each. So the list's length says how many a checkpoint was written with. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_STEP, _BUFFERED = "_step", "_buffered_inputs"
"""The micro-batches so far, and those that are generated, as TRL's Trainers name them."""


def fit_generations(state: Mapping[str, Any], args: Any) -> dict[str, Any]:
    """Return what of a Trainer's state changes, as its micro-batch has changed and its generation batch hasn't.

    Where the saved ones can't be cut anew, such as images of many patches, they are generated once more.
    """
    wanted, kept = getattr(args, "steps_per_generation", None), state.get(_BUFFERED)
    if not isinstance(wanted, int) or not isinstance(kept, list) or not kept or len(kept) == wanted:
        return {}
    rows = {length for one in kept for length in _lengths(one)}
    if sum(map(_rows, kept)) != wanted * args.per_device_train_batch_size:
        return {}  # another generation batch, which the script itself has asked for
    step = state.get(_STEP, 0) * wanted // len(kept)
    if len(rows) > 1:
        return {_STEP: step, _BUFFERED: None}
    return {_STEP: step, _BUFFERED: _cut(_joined(kept), wanted)}


def _lengths(piece: Mapping[str, Any]) -> list[int]:
    """Return how long each of a micro-batch's values is that has an entry for each row."""
    return [len(value) for value in piece.values() if _has_rows(value)]


def _rows(piece: Mapping[str, Any]) -> int:
    return next(iter(_lengths(piece)), 0)


def _has_rows(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, torch.Tensor) and value.ndim > 0)


def _joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return micro-batches as one; what has no rows, a count of all of them, say, is the same in each."""
    found: dict[str, Any] = {}
    for name, first in pieces[0].items():
        values = [piece[name] for piece in pieces]
        if isinstance(first, torch.Tensor) and first.ndim > 0:
            found[name] = torch.cat(values)
        else:
            found[name] = [row for value in values for row in value] if _has_rows(first) else first
    return found


def _cut(whole: Mapping[str, Any], pieces: int) -> list[dict[str, Any]]:
    rows = _rows(whole) // pieces
    return [
        {
            name: value[number * rows : (number + 1) * rows] if _has_rows(value) else value
            for name, value in whole.items()
        }
        for number in range(pieces)
    ]
