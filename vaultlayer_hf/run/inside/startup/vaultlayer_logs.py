"""What is logged while modules are imported beforehand: kept, and logged where the script comes to that import.

By then the script may have configured its logging, which decides what of it is shown, and how.
"""

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

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
            now = time.time()
            record.relativeCreated += (now - record.created) * 1000
            record.created, record.msecs = now, now % 1 * 1000
            logger.handle(record)
