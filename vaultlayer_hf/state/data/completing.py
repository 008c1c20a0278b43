"""The rows with which a loader for all ranks completes its last batch: those that its pass began with.

accelerate's DataLoaderDispatcher, which reads on one rank for all, keeps the first rows of the first batch that it
gives in a pass, one for each rank, and adds them to a last batch that can't be divided. A pass that goes on in its
middle would keep rows of the batch that it goes on with. So the rows are kept with the place, and handed to it again.
It takes them by its ``slice_fn``, in its first call of a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Completing:
    """Takes note of the first rows of each pass of one loader, and puts those of a pass that goes on in their place.

    Args:
        loader: the one that reads for all ranks.

    Attributes:
        first: the rows of the pass under way, as plain data; None before its first batch, or where they aren't tensors.
    """

    def __init__(self, loader: Any) -> None:
        self.first: Any = None
        self._loader, self._original = loader, loader.slice_fn
        self._awaited = False
        self._kept: Any = None
        loader.slice_fn = self._slice

    def begin(self, kept: Any) -> None:
        """Called when a pass is opened. ``kept``: the rows that it began with, where it goes on; else None."""
        self._awaited, self._kept, self.first = True, kept, kept

    def leave(self) -> None:
        """Leave the loader as it was. Safe to call twice."""
        if self._loader.slice_fn == self._slice:
            self._loader.slice_fn = self._original

    def _slice(self, *args: Any, **kwargs: Any) -> Any:
        rows = self._original(*args, **kwargs)
        if not self._awaited:
            return rows
        self._awaited = False
        if self._kept is not None:
            return _on_devices_of(rows, self._kept)
        self.first = _plain(rows)
        return rows


def _plain(rows: Any) -> Any:
    """Return rows as dictionaries, lists and tensors on the CPU; None where there is anything else in them."""
    if isinstance(rows, torch.Tensor):
        return rows.detach().cpu().clone()
    if isinstance(rows, Mapping):
        found: Any = {name: _plain(value) for name, value in rows.items()}
        return None if any(value is None for value in found.values()) else found
    if isinstance(rows, (list, tuple)):
        found = [_plain(value) for value in rows]
        return None if any(value is None for value in found) else found
    return None


def _on_devices_of(rows: Any, kept: Any) -> Any:
    """Return kept rows on the devices of the loader's own; the loader's own, where these are built in another way."""
    if isinstance(rows, torch.Tensor):
        return kept.to(rows.device) if isinstance(kept, torch.Tensor) else rows
    if isinstance(rows, Mapping) and isinstance(kept, dict) and set(rows) == set(kept):
        return {name: _on_devices_of(value, kept[name]) for name, value in rows.items()}
    if isinstance(rows, (list, tuple)) and isinstance(kept, list) and len(rows) == len(kept):
        return [_on_devices_of(mine, theirs) for mine, theirs in zip(rows, kept, strict=True)]
    return rows
