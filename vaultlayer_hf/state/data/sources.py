"""Data sets that tell where they are (``state_dict``), and whether that is the whole truth."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.state.data.probed import parts_of, why_distrusted

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
    return None if has_buffer(source) or why_distrusted(source) else source


def has_buffer(source: Any) -> bool:
    """Return whether rows wait in a shuffle buffer inside a data set."""
    return any(type(part).__name__ == _LOSSY for part in parts_of(source))


def why_fetched_again(dataset: Any) -> str:
    """Return why a data set of which ``source_of`` is None isn't asked to go on, in words."""
    return why_distrusted(unwrapped(dataset)) or "the data set can't be asked to go on from there"
