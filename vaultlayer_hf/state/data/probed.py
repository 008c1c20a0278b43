"""Whether a stream of ``datasets`` goes on where its ``state_dict`` says: tried, not believed.

Releases of ``datasets`` differ in it, and none says so: 5.0.0 goes on rightly once and returns the same state from
then on, so that the second resume trains on batches that were trained on; up to 5.0.0 one behind ``filter`` is wrong
at once. So a few rows in memory are sent through the same steps as the script's stream, broken off and gone on with
several times. The script's own data aren't touched. What goes on elsewhere is counted from its start instead.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from vaultlayer_hf.state.data.guard import reason_of

_ROWS, _SHARDS, _BATCH = 24, 2, 5
"""The batch size divides neither all rows nor those of a shard, and most breaks lie within a batch."""
_BREAKS = (3, 2, 4, 1)
"""Rows between one break and the next: within a batch, at its end, over the end of a shard is left to the last."""
_STEPS: dict[str, Callable[[Any], Any]] = {
    "MappedExamplesIterable": lambda stream: stream.map(_as_it_is, batched=True, batch_size=_BATCH),
    "FilteredExamplesIterable": lambda stream: stream.filter(_not_of_three),
    "TakeExamplesIterable": lambda stream: stream.take(_ROWS - 2),
    "SkipExamplesIterable": lambda stream: stream.skip(2),
    "RepeatExamplesIterable": lambda stream: stream.repeat(2),
    "SelectColumnsIterable": lambda stream: stream.select_columns(["x"]),
    "VerticallyConcatenatedMultiSourcesExamplesIterable": lambda stream: _library().concatenate_datasets(
        [stream, _rows()]
    ),
    "CyclingMultiSourcesExamplesIterable": lambda stream: _library().interleave_datasets([stream, _rows()]),
    "RandomlyCyclingMultiSourcesExamplesIterable": lambda stream: _library().interleave_datasets(
        [stream, _rows()], probabilities=[0.5, 0.5], seed=1
    ),
}
"""What makes a stream of another one, by the class of the part that it adds. Parts that aren't here (a format, rows
that are put into batches anew) come with these."""


def parts_of(stream: Any) -> Iterator[Any]:
    """Yield the parts of a stream of ``datasets``, the one that gives the rows first; nothing for other data sets."""
    waiting = [getattr(stream, "_ex_iterable", None)]  # no public name
    while waiting:
        part = waiting.pop(0)
        if part is not None:
            yield part
            waiting.append(getattr(part, "ex_iterable", None))
            waiting.extend(getattr(part, "ex_iterables", None) or ())


def why_distrusted(stream: Any) -> str:
    """Return why a data set's ``state_dict`` isn't to be relied on; empty where it is, or was never tried."""
    kind = getattr(sys.modules.get("datasets"), "IterableDataset", None)
    if kind is None:
        return ""
    # A wrapper's state is that of its inside.
    inner = list(vars(stream).values()) if hasattr(stream, "__dict__") else []
    for one in (stream, *inner):
        if isinstance(one, kind):
            names = [type(part).__name__ for part in parts_of(one)]
            if why := _tried(tuple(name for name in names if name in _STEPS)):
                return why
    return ""


@functools.cache
def _tried(steps: tuple[str, ...]) -> str:
    def make() -> Any:
        stream = _rows()
        for name in reversed(steps):
            stream = _STEPS[name](stream)
        return stream

    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        right, why = goes_on(make), ""
    except Exception as error:  # a release that does it otherwise: it can't be told
        right, why = False, f" ({reason_of(error)})"
    finally:
        logger.setLevel(level)
    if right:
        return ""
    return f"a stream of datasets {_library().__version__} doesn't go on where its state_dict says{why}"


def goes_on(make: Callable[[], Any]) -> bool:
    """Return whether data sets that ``make`` returns, all alike, go on where the state of the one before says.

    Several times in a row, since a state may be wrong only where its data set had gone on from another one itself.
    """
    whole = [repr(row) for row in make()]
    rows: list[str] = []
    state: Any = None
    for count in (*_BREAKS, None):
        stream = make()
        if state is not None:
            stream.load_state_dict(state)
        rows += [repr(row) for row in itertools.islice(iter(stream), count)]
        state = stream.state_dict()
    return rows == whole


def _library() -> Any:
    return sys.modules["datasets"]  # the stream that is asked about is of it


def _rows() -> Any:
    return _library().Dataset.from_dict({"x": list(range(_ROWS))}).to_iterable_dataset(num_shards=_SHARDS)


def _as_it_is(rows: dict[str, list[int]]) -> dict[str, list[int]]:
    return rows


def _not_of_three(row: dict[str, int]) -> bool:
    return row["x"] % 3 != 0
