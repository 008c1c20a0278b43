"""Objects that a loop makes behind ``carry()``: a new start hasn't got them, so it gets the very object, not its state.

That goes where the object can be pickled and holds nothing that is saved elsewhere, such as the model that is trained:
with its pickle would come back another one.
"""

from __future__ import annotations

import pickle
from collections.abc import Container
from typing import Any

import torch

from vaultlayer_hf.loops.placed_tensors import devices_of

NOT_THERE = "it was made behind carry() in the run that saved it: make it ahead of carry()"
"""What is said of one that this start would have to have."""


class Late(str):
    """What people know one by that can't come back by itself."""


class _HeldElsewhereError(Exception):
    """It holds what is saved elsewhere."""


class _Trial(pickle.Pickler):
    """Pickles a value to nowhere, without the content of its tensors. Raises what can't be pickled raises."""

    def __init__(self, elsewhere: Container[int]) -> None:
        super().__init__(_Nowhere())
        self._elsewhere = elsewhere

    def persistent_id(self, thing: Any) -> Any:
        if id(thing) in self._elsewhere:
            raise _HeldElsewhereError
        return "tensor" if isinstance(thing, torch.Tensor) else None


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def pickled_alone(
    value: Any, name: str, left_out: list[str], elsewhere: Container[int]
) -> tuple[bool, Any, list[str]]:
    """Return whether a file can hold a value itself, the value, and the devices of its tensors.

    ``elsewhere``: ids of what it must not hold. Where a file can't, the name goes into ``left_out``.
    """
    try:
        _Trial(elsewhere).dump(value)
    except Exception:  # of an object of the script's own: it raises what it likes
        left_out.append(Late(f"{name} (a {type(value).__name__})"))
        return False, None, []
    return True, value, devices_of(value)
