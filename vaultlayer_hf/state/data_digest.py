"""A digest of training data, to tell another fold or file: of some samples, where reading them has no side effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset

from vaultlayer_hf.base.digest import digest_bytes

_SAMPLES = 16
"""How many samples of the data are looked at: spread over all of it, so that another fold or file shows."""


def data_digest(dataset: Any) -> str:
    """Return a digest of some samples of a data set; empty where reading them might have a side effect.

    A data set of the user's own may draw random numbers or count when it is asked for a sample, so only those are
    read that can't: sequences, tensors, subsets of these, and ``datasets.Dataset``, without its transform.
    """
    try:
        rows = _readable(dataset)
        if rows is None or not len(rows):
            return ""
        places = spread(len(rows), _SAMPLES)
        said = [str(len(rows)).encode(), *(part for place in places for part in _bytes_of(rows[place]))]
        return digest_bytes(b"\0".join(said))
    except Exception:  # whatever it holds: then nothing is said of it
        return ""


def spread(length: int, most: int) -> list[int]:
    """Return at most so many places, spread over all of ``length``, its first and its last among them. Pure."""
    count = min(most, length)
    return sorted({round(number * (length - 1) / max(1, count - 1)) for number in range(count)})


def _readable(dataset: Any) -> Any:
    """Return what can be indexed without a side effect; None: nothing of it."""
    if isinstance(dataset, Subset):
        inner = _readable(dataset.dataset)
        return None if inner is None else _Picked(inner, dataset.indices)
    if isinstance(dataset, (list, tuple, TensorDataset)):
        return dataset
    if type(dataset).__module__.split(".")[0] == "datasets" and hasattr(dataset, "with_format"):
        return dataset.with_format(None) if hasattr(dataset, "__len__") else None
    return None


class _Picked:
    """Some rows of others, by their places."""

    def __init__(self, rows: Any, places: Sequence[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> Any:
        return self._rows[self._places[place]]


def _bytes_of(value: Any) -> Iterator[bytes]:
    """Yield the content of a sample. Raises TypeError for what has no content of its own."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield str(name).encode()
            yield from _bytes_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _bytes_of(part)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(value, "tobytes"):
        yield value.tobytes()
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield repr(value).encode()
    else:
        raise TypeError(type(value).__name__)
