"""Checked reading of JSON from a vault: whoever can write to the vault could have written anything."""

from __future__ import annotations

import json
import re
from typing import Any

from vaultlayer_hf.errors import CorruptError, FormatVersionError

FORMAT_VERSION = 1
"""Of log entries, parts and manifests. A release reads its own and every earlier version."""
_VALUES = 16_000_000
_BAD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Values, lists and objects of a JSON text, at most. The largest manifest of a million files and a million parameters
has 13 million. Parsed, a value takes 60 bytes and more, however short its text is: this bounds the memory to about what
that manifest takes, where 256 MiB of ``[],`` would take 6 GB.
"""


class Fields:
    """A JSON object whose fields are taken out with a type and bounds; a misfit raises CorruptError."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise CorruptError(f"{what}: expected an object, found {type(value).__name__}")
        self._value: dict[str, Any] = value
        self._what = what

    @property
    def values(self) -> dict[str, Any]:
        """Every field, unchecked: a dictionary of its own, with the object's values."""
        return dict(self._value)

    def text(self, name: str, *, limit: int = 4096) -> str:
        """Return a string of at most ``limit`` characters, none of which could steer a terminal or break a key."""
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > limit or has_bad_character(value):
            raise CorruptError(f"{self._what}: field {name!r} is not a text of at most {limit} characters")
        return value

    def whole(self, name: str, *, low: int = 0, high: int = 2**62) -> int:
        """Return a whole number in [low, high]."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise CorruptError(f"{self._what}: field {name!r} is not a whole number from {low} to {high}")
        return value

    def optional_whole(self, name: str) -> int | None:
        """Return a whole number, or None where the field is missing or null."""
        return None if self._value.get(name) is None else self.whole(name)

    def flag(self, name: str) -> bool:
        """Return a boolean; a missing one is False."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise CorruptError(f"{self._what}: field {name!r} is not true or false")
        return value

    def items(self, name: str, *, limit: int) -> list[Any]:
        """Return a list of at most ``limit`` items; a missing one is empty."""
        value = self._value.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise CorruptError(f"{self._what}: field {name!r} is not a list of at most {limit} items")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object; a missing one is empty."""
        value = self._value.get(name, {})
        if not isinstance(value, dict):
            raise CorruptError(f"{self._what}: field {name!r} is not an object")
        return value

    def part(self, name: str) -> Fields:
        """Return an object, checked in the same way."""
        return Fields(self._value.get(name), f"{self._what}: field {name!r}")

    def get(self, name: str) -> Any:
        """Return a field unchecked, or None."""
        return self._value.get(name)


def has_bad_character(text: str) -> bool:
    """Tell whether a text holds a control character, or a lone surrogate, which no encoding can carry."""
    return _BAD.search(text) is not None


def load(data: bytes, what: str) -> Fields:
    """Parse an object and check its format version. Raises CorruptError, FormatVersionError."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _VALUES:
        raise CorruptError(f"{what}: it holds more values than anything in a vault has")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{what}: not readable as JSON") from error
    fields = Fields(value, what)
    version = fields.whole("format_version", low=1)
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{what}: format version {version}, and this release knows up to {FORMAT_VERSION}: "
            "upgrade vaultlayer-hf to read this vault"
        )
    return fields


def dump(value: dict[str, Any]) -> bytes:
    """Return the one way in which an object is written: sorted keys, compact, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
