"""Digests of what turns a training's data into numbers: tokenizers, and tables of ids that the data's functions read.

A script that makes its ids from a set, or from a dictionary that is filled from one, gives other ids to the same words
at each start: Python orders sets of text by a number that it draws anew. The model has learnt the old ones, and no
number in the data need show it. Looked at are the data set, the collator, and what the script's own functions of these
read; nothing is called that is the script's own. Of a large table some ids are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vaultlayer_hf.base.digest import digest_bytes
from vaultlayer_hf.state.data.inner import data_sets
from vaultlayer_hf.state.functions import reached
from vaultlayer_hf.state.object_kinds import is_of_script

_IDS = 1 << 12
"""Ids of a table that are looked at: all of a small one, else these, spread over it."""
_MOST = 1 << 20
"""Entries of a table of the script's own, beyond which it isn't looked at."""
_DEEP = 3
"""Objects within objects, at most."""
_STREAM = ("_ex_iterable", "ex_iterable", "ex_iterables", "function")
"""Where a stream of ``datasets`` holds the functions that are mapped over it."""


def vocabulary_digests(dataset: Any, **others: Any) -> dict[str, str]:
    """Return digests of tokenizers and tables of ids, by where they are: ``data_collator.tokenizer``, ``encode.ids``.

    Args:
        dataset: of the training; those within it are looked at, too.
        others: what else turns its data into numbers, by name; None is nothing.
    """
    sets = [one for one in data_sets(dataset) if one is not None]
    things = {type(one).__name__: one for one in sets}
    things |= {name: one for name, one in others.items() if one is not None}
    found: dict[str, str] = {}
    rows = {*filter(None, map(_length, sets))}
    for name, value in _values(things):
        try:
            digest = _digest(value, rows)
        except Exception:  # an object of the script's own: nothing is said of it
            continue
        if digest:
            found.setdefault(name.replace(" ", "_").replace("=", "_"), digest)
    return found


def _values(things: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what may be a table, by its path: things themselves, what they hold, and what their functions read."""
    for name, thing in things.items():
        yield from _within(name, thing, _DEEP)
    functions = [one for thing in things.values() for one in _mapped(thing, _DEEP * 2)]
    for name, place in reached([*things.values(), *functions]).items():
        for variable, value in place.values().items():
            yield from _within(f"{name}.{variable}", value, _DEEP)


def _within(path: str, value: Any, deep: int) -> Iterator[tuple[str, Any]]:
    yield path, value
    inside = getattr(value, "__dict__", {}) if deep and not isinstance(value, type) else {}
    wraps = (
        is_of_script(type(value)) or "ollator" in type(value).__name__ or hasattr(value, "image_processor")
    )
    for name, one in list(inside.items()) if wraps else ():
        yield from _within(f"{path}.{name}", one, deep - 1)


def _mapped(value: Any, deep: int) -> Iterator[Any]:
    """Yield the functions that are mapped over a stream of ``datasets``."""
    for name in _STREAM if deep else ():
        inside = getattr(value, "__dict__", {}).get(name)
        for one in inside if isinstance(inside, (list, tuple)) else [inside]:
            if callable(one) and name == "function":
                yield one
            elif one is not None:
                yield from _mapped(one, deep - 1)


def _digest(value: Any, rows: Collection[int]) -> str:
    """Return the digest of a table; empty for anything else, and for what has as many entries as the data ``rows``."""
    if isinstance(value, (Mapping, list, tuple)) and len(value) in rows:
        return ""
    if isinstance(value, Mapping):
        return _of_table(value)
    if isinstance(value, (list, tuple)):
        return _of_table(dict(enumerate(value))) if _are_words(value) else ""
    if hasattr(type(value), "get_vocab") and not is_of_script(type(value)):
        return _of_tokenizer(value)
    return ""


def _are_words(values: Sequence[Any]) -> bool:
    """Tell whether a list may be one of words, whose places are their ids, and not of texts or paths."""
    fits = 1 < len(values) <= _MOST and all(
        isinstance(one, str) and not {" ", "/"} & {*one} for one in values
    )
    return fits and len({*values}) == len(values)


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:  # it has none, or an object of the script's own raises what it likes
        return None


def _of_table(table: Mapping[Any, Any]) -> str:
    """Return the digest of a dictionary between text and whole numbers in which each number stands once."""
    if not 1 < len(table) <= _MOST:
        return ""
    pairs = list(table.items())
    if all(type(one) is int for one, _ in pairs[:2]):
        pairs = [(word, number) for number, word in pairs]
    if not all(isinstance(word, str) and type(number) is int for word, number in pairs):
        return ""
    if len({number for _, number in pairs}) < len(pairs):
        return ""
    every = len(pairs) // _IDS + 1
    return _joined(sorted((number, word) for word, number in pairs if number % every == 0))


def _of_tokenizer(tokenizer: Any) -> str:
    """Return the digest of a library's tokenizer: of some of its ids, and of all that were added to it."""
    size = len(tokenizer)
    ids = range(0, size, size // _IDS + 1)
    added: dict[str, int] = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
    words = tokenizer.convert_ids_to_tokens(list(ids))
    return _joined([*zip(ids, words, strict=True), *sorted((number, word) for word, number in added.items())])


def _joined(pairs: list[tuple[int, str]]) -> str:
    return digest_bytes("\0".join(f"{number} {word}" for number, word in pairs).encode())
