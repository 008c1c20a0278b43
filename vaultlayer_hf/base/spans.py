"""Spans that a setting gives as text: ``5min``, ``200 steps``, ``auto``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from vaultlayer_hf.base.text import duration_text
from vaultlayer_hf.errors import SettingsError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
    "d": ("d", "day", "days"),
    "steps": ("step", "steps"),
}
_UNIT_OF = {word: unit for unit, words in _WORDS.items() for word in words}


@dataclass(frozen=True)
class Cadence:
    """What ``save_every`` asks for.

    Attributes:
        kind: ``steps``, ``seconds``, ``auto``, or ``none``: only the training's own saves.
        value: how many steps or seconds; 0 for the other kinds.
    """

    kind: Literal["none", "steps", "seconds", "auto"] = "none"
    value: float = 0.0

    def __str__(self) -> str:
        if self.kind in ("none", "auto"):
            return self.kind
        return f"every {duration_text(self.value) if self.kind == 'seconds' else f'{self.value:.0f} steps'}"


def parse_cadence(text: str | int | None) -> Cadence:
    """Return what ``"5min"``, ``"30s"``, ``"200 steps"``, 200 (steps), ``"auto"`` or None asks for.

    Raises SettingsError.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = f"{text} steps"
    word = "none" if text is None else str(text).strip().lower()
    if word in ("none", "off"):
        return Cadence()
    if word == "auto":
        return Cadence("auto")
    value, unit = _split(word)
    if unit == "steps" and value >= 1 and value == int(value):
        return Cadence("steps", value)
    if unit in _UNITS and value > 0:
        return Cadence("seconds", value * _UNITS[unit])
    raise SettingsError(f"save_every={text!r}: use such as '5min', '30s', '200 steps' or 'auto'")


def parse_duration(text: str | float | None, name: str) -> float | None:
    """Return the seconds that ``"10min"``, ``"90s"`` or a number of seconds means. Raises SettingsError."""
    if text is None or str(text).strip().lower() in ("none", "off"):
        return None
    value, unit = _split(f"{text} s" if isinstance(text, (int, float)) else str(text).strip().lower())
    if isinstance(text, bool) or unit not in _UNITS or not value > 0:
        raise SettingsError(f"{name}={text!r}: use such as '10min' or '90s'")
    return value * _UNITS[unit]


def parse_seconds(value: str | float, name: str) -> float:
    """Return the seconds, 0 or more, that ``"2min"``, ``"90"`` or a number of seconds means. Raises SettingsError."""
    if isinstance(value, str):
        text = value.strip().lower()
        number, unit = _split(f"{text} s" if text.replace(".", "", 1).isdigit() else text)
        seconds = number * _UNITS[unit] if unit in _UNITS else math.nan
    else:
        seconds = (
            float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        )
    if not (math.isfinite(seconds) and seconds >= 0):
        raise SettingsError(
            f"{name}={value!r}: use a number of seconds, 0 or more, or such as '90s' or '2min'"
        )
    return seconds


def _split(text: str) -> tuple[float, str]:
    """Return the number and the unit of a text; a unit of "" where it can't be read."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)
    return (float(match[1]), _UNIT_OF.get(match[2], "")) if match else (0.0, "")
