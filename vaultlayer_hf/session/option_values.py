"""How the options of a run are read, from text such as ``"50MB"`` and from variables.

A variable that can't be read is no error here: it is told together with all else that is wrong.
"""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar, overload

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.session.option_names import no_such

NONE = ("none", "off")
"""What stands for None in a variable."""
_T = TypeVar("_T")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_signals(text: str) -> tuple[str, ...]:
    """Return the names in ``"SIGTERM, USR1"``; raises ValueError for what isn't a signal that can be caught."""
    names = []
    for part in filter(None, (part.strip().upper() for part in text.split(","))):
        name = part if part.startswith("SIG") else f"SIG{part}"
        if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP"):
            raise ValueError(f"{part} is no signal that can be caught")
        names.append(name)
    return tuple(dict.fromkeys(names))


def parse_rate(text: str | float | None) -> float | None:
    """Return bytes per second from a number or from text such as ``"50MB"``, ``"1.5 GiB/s"``; None is no cap.

    Raises SettingsError.
    """
    if text is None or (isinstance(text, (int, float)) and not isinstance(text, bool)):
        return None if text is None else float(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?(?:/s)?\s*", str(text).lower())
    if match is None:
        raise SettingsError(f"bandwidth={text!r}: use bytes per second, such as '50MB' or '1.5GiB'")
    return float(match[1]) * _UNITS[match[2] or ""]


def flag(text: str) -> bool:
    """Return what ``"yes"``, ``"off"`` and the like say; raises ValueError for any other text."""
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError
    return text.lower() in ("1", "true", "yes", "on")


class Seconds:
    """For type checkers: what is given as a number of seconds or as text such as ``"2min"`` is read as seconds."""

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: Any) -> float: ...
    def __get__(self, instance: Any, owner: Any) -> Any: ...
    def __set__(self, instance: Any, value: float | str) -> None: ...


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser that reads ``"none"`` as None, and all else as ``parse`` does."""
    return lambda text: None if text.lower() in NONE else parse(text)


@dataclass(frozen=True)
class Unusable:
    """Stands for the value of a variable that can't be read, until all that is wrong is said at once.

    Attributes:
        message: what is wrong with it.
        default: the option's value without the variable.
    """

    message: str
    default: Any


def from_environment(
    name: str, parse: Callable[[str], Any], default: Any, kind: str = "a whole number"
) -> Any:
    """Return a dataclass field whose default is read from its variable when an object is made.

    ``kind``: what its value is, as an error says it of one that can't be used.
    """
    variable = f"VAULTLAYER_{name.upper()}"

    def read() -> Any:
        text = os.environ.get(variable, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError:
            remedy = "'yes' or 'no'" if parse is flag else kind + (", or 'none'" if parse is not int else "")
            return Unusable(f"{variable}={text!r} can't be used: {name} is {remedy}", default)

    return field(default_factory=read)


def suggesting(cls: type[_T]) -> type[_T]:
    """Have a dataclass answer an unknown option with the one that was meant, as Python itself does from 3.13 on."""
    init, known = cls.__init__, [item.name for item in fields(cls)]  # type: ignore[arg-type]

    @functools.wraps(init)
    def checked(self: Any, *given: Any, **options: Any) -> None:
        if unknown := options.keys() - set(known):
            raise TypeError(no_such("option", unknown, known))
        init(self, *given, **options)

    cls.__init__ = checked  # type: ignore[method-assign]
    return cls
