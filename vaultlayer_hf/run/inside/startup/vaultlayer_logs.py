"""What imports done beforehand log, and how they set their loggers: kept until the script comes to each import.

By then the script may have configured its logging, which decides what of it is shown, and how.
"""

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    _State = tuple[int, bool, bool, list[Any], list[Any]]

_MOST = 1000
"""Records of one import: what logs more at its import isn't kept whole."""


class Logs:
    """Keeps records that go to loggers, from the moment that ``logging`` is there until ``end``."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._usual: tuple[Any, Any] | None = None

    def watch(self, logging: "Any") -> None:
        """Keep what goes to loggers from here on; once."""
        if self._usual is not None:
            return
        logger = logging.Logger
        self._usual = is_enabled, handle = logger.isEnabledFor, logger.handle
        own = logging.__dict__

        def isEnabledFor(self_: "Any", level: int) -> bool:  # noqa: N802
            # Who asks whether to work out something for a log gets the true answer.
            asked_by_logging = sys._getframe(1).f_globals is own and self._keeps()
            return bool(asked_by_logging or is_enabled(self_, level))

        def handler(self_: "Any", record: "Any") -> None:
            if not self._keeps():
                handle(self_, record)  # somebody has taken this function for the real one
            elif len(self._kept) < _MOST:
                self._kept.append(record)

        logger.isEnabledFor, logger.handle = isEnabledFor, handler

    def taken(self) -> "list[Any]":
        """Return what was logged since the last call."""
        found, self._kept = self._kept, []
        return found

    def end(self) -> None:
        """Keep no more."""
        if self._usual is not None:
            logger = sys.modules["logging"].Logger
            logger.isEnabledFor, logger.handle = self._usual
            self._usual = None

    def _keeps(self) -> bool:
        return self._usual is not None


def log(records: "Iterable[Any]") -> None:
    """Log what was kept, as if it were logged now."""
    for record in records:
        logger = sys.modules["logging"].getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            now, start = time.time(), sys.modules["logging"]._startTime
            record.relativeCreated = (now - (start if type(start) is float else start / 10**9)) * 1000
            record.created, record.msecs = now, now % 1 * 1000
            logger.handle(record)


class Loggers:
    """Sees what imports do to loggers, the root logger apart."""

    def __init__(self) -> None:
        self._known: dict[str, _State] = {}

    def changes(self) -> "list[LoggerChange]":
        """Return what has been done since the last call."""
        logging: Any = sys.modules.get("logging")
        found = []
        loggers = logging.root.manager.loggerDict if hasattr(logging, "root") else {}  # it may be half made
        for name, logger in loggers.items():
            if isinstance(logger, logging.Logger):
                before, now = self._known.get(name), _state(logger)
                if now != before:
                    found.append(LoggerChange(logger, before, now))
                    self._known[name] = now
        return found


class LoggerChange:
    """What an import has done to a logger.

    Args:
        logger: it.
        before: how it was; None: it is new.
        after: how it is.
    """

    def __init__(self, logger: "Any", before: "_State | None", after: "_State") -> None:
        self._logger, self._new, self._after = logger, before is None, after
        self._before = before or (0, True, False, [], [])

    def take_back(self) -> None:
        """Have the logger as it was; a new one as it was made."""
        self._change(self._after, self._before)

    def do_again(self) -> None:
        """Do the same to it, whatever the script has done to it meanwhile."""
        level, propagate, _, handlers, filters = _state(self._logger)
        if self._new and self._before == (level, propagate, False, handlers, filters):
            # The script doesn't know it: whoever has disabled all loggers that there are couldn't mean it.
            self._logger.disabled = False
        self._change(self._before, self._after)

    def _change(self, before: "_State", after: "_State") -> None:
        logger = self._logger
        if after[0] != before[0]:
            logger.setLevel(after[0])
        if after[1] != before[1]:
            logger.propagate = after[1]
        if after[2] != before[2]:
            logger.disabled = after[2]
        for had, have, add, remove in (
            (before[3], after[3], logger.addHandler, logger.removeHandler),
            (before[4], after[4], logger.addFilter, logger.removeFilter),
        ):
            for one in had:
                if one not in have:
                    remove(one)
            for one in have:
                if one not in had:
                    add(one)


def _state(logger: "Any") -> "_State":
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters)
