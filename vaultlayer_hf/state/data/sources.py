"""Data sets that tell where they are (``state_dict``), and whether that is the whole truth."""

from __future__ import annotations

from typing import Any

_LOSSY = "BufferShuffledExamplesIterable"
"""A shuffle buffer of ``datasets``: its state_dict leaves the buffer's content out."""


def unwrapped(dataset: Any) -> Any:
    """Return the data set that a script made, without the shard that accelerate puts around it."""
    while type(dataset).__name__ == "IterableDatasetShard":
        dataset = dataset.dataset
    return dataset


def source_of(dataset: Any) -> Any:
    """Return the object whose ``state_dict`` is the position in a data set; None where there is none to rely on."""
    if unwrapped(dataset) is not dataset and not getattr(dataset, "drop_last", False):
        return None  # the shard completes the last batch from the first one, which it has forgotten then
    source = unwrapped(dataset)
    if not (
        callable(getattr(source, "state_dict", None)) and callable(getattr(source, "load_state_dict", None))
    ):
        return None
    return None if _has_buffer(source) else source


def _has_buffer(source: Any) -> bool:
    waiting = [getattr(source, "_ex_iterable", None)]
    while waiting:
        part = waiting.pop()
        if type(part).__name__ == _LOSSY:
            return True
        if part is not None:
            waiting.append(getattr(part, "ex_iterable", None))
            waiting.extend(getattr(part, "ex_iterables", None) or ())
    return False
