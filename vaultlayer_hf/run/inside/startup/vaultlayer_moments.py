"""The time of an import that its modules have kept: moved to the time at which the script comes to that import.

``logging`` does so, and what reports how long something has taken. A number of seconds, or of nanoseconds, that lies
within the import's own time by one of the clocks is no chance.
"""

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Clocks = tuple[float, float]

_NS = 10**9


class Moment:
    """A time that a module has kept.

    Args:
        namespace: of the module.
        name: in it.
        clock: which one it is of: 0 of the day, 1 since the start of the machine.
        per_second: what it counts.
    """

    def __init__(self, namespace: "dict[str, Any]", name: str, clock: int, per_second: int) -> None:
        self._namespace, self._name = namespace, name
        self._value: Any = namespace[name]
        self._clock, self._per_second = clock, per_second

    def renew(self) -> None:
        """Have the module believe that it is imported now."""
        if self._namespace.get(self._name) is not self._value:
            return  # it has been changed since
        now: Any = clocks()[self._clock] * self._per_second
        if isinstance(self._value, int):
            now = int(now)
        elif not isinstance(self._value, float):
            date: Any = self._value
            now = date.now(date.tzinfo)
        self._namespace[self._name] = now


def kept_moments(modules: "Iterable[Any]", begin: "Clocks", end: "Clocks") -> "list[Moment]":
    """Return the times between these two that modules have kept."""
    datetime = getattr(sys.modules.get("datetime"), "datetime", None)
    found = []
    for namespace in [getattr(module, "__dict__", {}) for module in modules]:
        for name, value in list(namespace.items()):
            kind = type(value)
            if kind is datetime:
                if begin[0] <= _seconds(value) <= end[0]:
                    found.append(Moment(namespace, name, 0, 1))
            elif kind is int or (kind is float and not value.is_integer()):
                for clock, (first, last) in enumerate(zip(begin, end, strict=True)):
                    least = int(first) if kind is int else first
                    # Whole seconds of a machine that has run for minutes may be any number.
                    if least <= value <= last and (kind is float or clock == 0):
                        found.append(Moment(namespace, name, clock, 1))
                    elif kind is int and first * _NS <= value <= last * _NS:
                        found.append(Moment(namespace, name, clock, _NS))
    return found


def _seconds(value: "Any") -> float:
    try:
        return float(value.timestamp())
    except (OverflowError, ValueError, OSError):
        return 0.0  # long before any clock


def clocks() -> "Clocks":
    """Return the time of the day and the seconds since the start of the machine."""
    return time.time(), time.monotonic()
