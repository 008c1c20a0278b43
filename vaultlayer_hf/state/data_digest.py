"""A digest of training data, to tell another fold or file: of some samples, where reading them has no side effect.

A data set of the user's own may draw random numbers, or count, when it is asked for a sample, so it isn't asked. What
it holds can be looked at, though: lists, arrays and tables with as many rows as it has samples, and other data sets
that it wraps. Each of these has a digest by its name, since some of them may change from start to start (a cache, a
draw of negatives) while the data are the same.

Beside it stands what turns the data into numbers (vocabularies.py), each by a name of its own: where that differs, the
data may be the same, and mean something else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from vaultlayer_hf.base.digest import digest_bytes

_SAMPLES = 16
"""How many samples of the data are looked at: spread over all of it, so that another fold or file shows."""
_READ = "read:"
"""How names begin of what turns the data into numbers."""
_DEEP = 4
"""How many data sets within each other are looked into."""


class Differ(enum.Enum):
    """How the data of two trainings differ."""

    NOT = "not"
    PARTLY = "partly"
    WHOLLY = "wholly"


def data_digest(dataset: Any) -> str:
    """Return a digest of some samples of a data set; empty where reading them might have a side effect.

    Read are those that can't have any: sequences, tensors, subsets of these, and ``datasets.Dataset``, without its
    transform. Of others what they hold, as ``name=digest`` with blanks between.
    """
    try:
        rows = _readable(dataset)
        if rows is None:
            return " ".join(f"{name}={digest}" for name, digest in _held(dataset, len(dataset)))
        return _digest(rows) if len(rows) else ""
    except Exception:  # whatever it holds: then nothing is said of it
        return ""


def with_vocabularies(digest: str, vocabularies: Mapping[str, str]) -> str:
    """Return a digest of data together with those of what turns them into numbers, by name. Pure."""
    return " ".join([*([digest] if digest else []), *(f"{_READ}{k}={v}" for k, v in vocabularies.items())])


def without_vocabularies(digest: str) -> str:
    """Return what ``with_vocabularies`` was given of the data. Pure."""
    return " ".join(part for part in digest.split(" ") if not part.startswith(_READ))


def other_vocabularies(then: str, now: str) -> list[str]:
    """Return the names of what turns data into numbers in both of two digests, and differs. Pure.

    >>> other_vocabularies("1 read:encode.ids=2", "1 read:encode.ids=3")
    ['encode.ids']
    """
    old, new = _parts(then), _parts(now)
    return [
        name.removeprefix(_READ)
        for name, digest in old.items()
        if name.startswith(_READ) and new.get(name, digest) != digest
    ]


def _parts(digest: str) -> dict[str, str]:
    return dict(part.rpartition("=")[::2] for part in digest.split(" "))


def compare_data(then: str, now: str) -> Differ:
    """Tell how two digests of data differ; of what only one of them holds nothing is said. Pure.

    >>> compare_data("rows=1 negatives=2", "rows=1 negatives=3")
    <Differ.PARTLY: 'partly'>
    """
    old, new = (_parts(without_vocabularies(one)) for one in (then, now))
    common = [name for name in old if name in new]
    others = [name for name in common if old[name] != new[name]]
    if not others:
        return Differ.NOT
    return Differ.WHOLLY if len(others) == len(common) else Differ.PARTLY


def spread(length: int, most: int) -> list[int]:
    """Return at most so many places, spread over all of ``length``, its first and its last among them. Pure."""
    count = min(most, length)
    return sorted({round(number * (length - 1) / max(1, count - 1)) for number in range(count)})


def _digest(rows: Any, *, paths: bool = True) -> str:
    places = spread(len(rows), _SAMPLES)
    said = [str(len(rows)).encode(), *(part for place in places for part in _bytes_of(rows[place], paths))]
    return digest_bytes(b"\0".join(said))


def _held(dataset: Any, size: int, deep: int = _DEEP) -> Iterator[tuple[str, str]]:
    """Yield names and digests of what a data set of the user's own holds, and the data sets within it hold."""
    if isinstance(dataset, IterableDataset) or not deep:
        return
    if isinstance(dataset, Subset):
        own = list(_held(dataset.dataset, len(dataset.dataset), deep - 1))  # type: ignore[arg-type]
        yield from (
            (f"dataset.{name}", digest_bytes(f"{digest} {_digest(dataset.indices)}".encode()))
            for name, digest in own
        )
        return
    for name, value in sorted(_flat(vars(dataset))):
        rows = value if _is_rows(value) else _readable(value) if isinstance(value, Dataset) else None
        if hasattr(value, "iloc"):  # a table of pandas
            rows = _Table(value)
        if rows is not None and len(rows) >= max(size, 1):
            try:
                yield name, _digest(rows, paths=False)
            except (TypeError, ValueError):  # rows that have no content of their own
                continue
        elif rows is None and isinstance(value, Dataset):
            yield from ((f"{name}.{part}", digest) for part, digest in _held(value, len(value), deep - 1))  # type: ignore[arg-type]


def _flat(found: Mapping[str, Any], prefix: str = "", deep: int = 2) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds, with that of its dictionaries and of its lists of data sets, by name."""
    for key, value in found.items():
        name = f"{prefix}{key}".replace(" ", "_").replace("=", "_")
        if isinstance(value, (list, tuple)) and value and all(isinstance(one, Dataset) for one in value):
            yield from ((f"{name}.{number}", one) for number, one in enumerate(value))
        elif isinstance(value, Mapping) and deep:
            yield from _flat({str(one): part for one, part in value.items()}, f"{name}.", deep - 1)
        else:
            yield name, value


def _is_rows(value: Any) -> bool:
    """Tell whether something is a sequence without a side effect: of Python, torch or numpy."""
    if isinstance(value, torch.Tensor) or type(value).__module__ == "numpy":
        return bool(getattr(value, "ndim", 0))
    return isinstance(value, (list, tuple))


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


class _Table:
    """The rows of a table of pandas."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, place: int) -> Any:
        return next(iter(self._table.iloc[[place]].itertuples(index=False)))


def _bytes_of(value: Any, paths: bool) -> Iterator[bytes]:
    """Yield the content of a sample; without ``paths``, of a file's path its name alone, since folders move.

    Raises TypeError for what has no content of its own.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            yield str(name).encode()
            yield from _bytes_of(part, paths)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _bytes_of(part, paths)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(value, "tobytes"):
        yield value.tobytes()
    elif not paths and (
        isinstance(value, Path) or (isinstance(value, str) and "/" in value and " " not in value)
    ):
        yield Path(value).name.encode()
    elif not paths and value is None:
        raise TypeError("a place that is filled later")
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield repr(value).encode()
    else:
        raise TypeError(type(value).__name__)
