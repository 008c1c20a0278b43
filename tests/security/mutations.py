"""Hostile variants of a good JSON document: other kinds of values, out of bounds, too deep, names that lead out."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Document = dict[str, Any]
Path = tuple[str | int, ...]

DEEP: Any = 0
for _ in range(300):
    DEEP = [DEEP]

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**62, 2**63, 10**25, 10**4000, 1.5, -0.0, float("nan"), float("inf"),
    "", "0", "..", "../../evil", "/etc/passwd", "data/1/../../evil", "data/1/checkpoint-200", "log", "a\0b",
    "\x1b[2J\x1b]0;evil\x07", "\ud800", "\u202e", "x" * 5000, "blake3:" + "0" * 64, "claim", "commit", "finish", "pin",
    "2026-01-01T00:00:00Z", "2026-01-01", "9999-12-31T23:59:59.999999+14:00", "0001-01-01T00:00:00-14:00",
    [], {}, [None], [[]], {"": None}, {"a": {"b": []}}, [1, 2, 3], ["x", [1], "float32"], [["x", [10**30] * 40, "f"]],
    {"uri": "s3://x", "step": 1}, {"1": "x"}, {"retired": 5}, {"loss": 10**400}, {"evil\x1b": 1.0}, DEEP,
]  # fmt: skip


def fuzz(examples: int) -> settings:
    """Return Hypothesis' settings for so many examples, the same each time; more and others with
    ``VAULTLAYER_TEST_FUZZ=20``, which asks for 20 times as many.
    """
    factor = int(os.environ.get("VAULTLAYER_TEST_FUZZ") or 0)
    return settings(
        derandomize=not factor,
        max_examples=examples * max(1, factor),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def places(document: Any, here: Path = ()) -> Iterator[Path]:
    """Yield the way to each value inside a document, outer ones first."""
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for name, value in items:
        yield (*here, name)
        yield from places(value, (*here, name))


def changed(document: Document, way: Path, value: Any, how: str) -> Document:
    """Return a copy with one change: ``put`` a value, ``drop`` what is there, or have it ``twice``."""
    result = copy.deepcopy(document)
    holder: Any = result
    for name in way[:-1]:
        holder = holder[name]
    if how == "put":
        holder[way[-1]] = value
    elif how == "drop":
        del holder[way[-1]]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[way[-1]]))
    else:
        holder["twice"] = holder[way[-1]]
    return result


@st.composite
def variants(draw: st.DrawFn, documents: list[Document]) -> Document:
    """Draw a document with one to three changes."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(document))
        if not ways:
            break
        value = draw(st.sampled_from(HOSTILE) | st.integers() | st.text(max_size=20))
        how = draw(st.sampled_from(["put", "put", "put", "put", "drop", "twice"]))
        document = changed(document, draw(st.sampled_from(ways)), value, how)
    return document


def to_bytes(document: Any) -> bytes:
    """Return the JSON text of a document, with NaN and lone surrogates as an attacker may write them."""
    return json.dumps(document).encode()
