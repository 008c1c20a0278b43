"""Events: everything that happens to a run's checkpoints, said once, in one line, through ``logging``.

Logging works as in transformers: the library's root logger is ``vaultlayer_hf``; where the program has set
up no logging, the library's own handler writes to stderr at the level of ``VAULTLAYER_VERBOSITY`` (a name
of the logging module such as ``warning``; default ``info``: a run has few events, and each matters).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("vaultlayer_hf")
_configured = False


class _OwnHandler(logging.StreamHandler[Any]):
    """Writes to what is stderr at that time, and only while the program has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return  # the record goes there too
        self.stream = sys.stderr
        super().emit(record)


def _configure() -> None:
    """Give the library's logger a handler and a level, unless the program has its own."""
    global _configured
    if _configured:
        return
    _configured = True
    level = logging.getLevelName(os.environ.get("VAULTLAYER_VERBOSITY", "info").upper())
    if logger.level == logging.NOTSET:
        logger.setLevel(level if isinstance(level, int) else logging.INFO)
    if not logger.handlers:
        handler = _OwnHandler()
        handler.setFormatter(logging.Formatter("[vaultlayer] %(message)s"))
        logger.addHandler(handler)


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``claim``, ``fresh``, ``save``, ``commit``, ``abandon``, ``adopt``, ``restore``, ``walk-back``,
            ``fenced``, ``trouble``, ``recovered``, ``retire``, ``finish``, ``finished``, ``cadence``, ``preempt``,
            ``inexact`` or ``notice``.
        message: one line for a person.
        fields: the same for a program: step, token, seconds, bytes, reason and the like.
    """

    kind: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


class Events:
    """Logs each event once and hands it to the listeners. Safe to call from several threads."""

    def __init__(self) -> None:
        _configure()
        self.rank = 0
        """Of this process. Ranks other than 0 keep what is in order to the debug level, and sign the rest."""
        self.host = ""
        """Name of this host, where there are several ranks: signs trouble on any of them."""
        self._listeners: list[Callable[[Event], None]] = []
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` with every later event, on the thread on which it happens."""
        self._listeners.append(listener)

    def info(self, kind: str, message: str, **fields: Any) -> None:
        """Report something that is as it should be."""
        self._emit(logging.INFO, kind, message, fields)

    def warn(self, kind: str, message: str, **fields: Any) -> None:
        """Report something that somebody should know of or act on."""
        self._emit(logging.WARNING, kind, message, fields)

    def sign_of_life(self, message: str) -> None:
        """Log that something is waited for, on whichever rank."""
        logger.info("%s", f"rank {self.rank}: {message}" if self.rank else message)

    def warn_once(self, cause: str, kind: str, message: str, **fields: Any) -> None:
        """Report as ``warn`` does, once for each ``cause`` until it is forgotten."""
        with self._lock:
            if cause in self._said:
                return
            self._said.add(cause)
        self.warn(kind, message, **fields)

    def forget(self, topic: str) -> bool:
        """Let causes that begin with ``topic`` be warned about again: it is over. Return whether there were any."""
        with self._lock:
            over = {cause for cause in self._said if cause.startswith(topic)}
            self._said -= over
        return bool(over)

    def _emit(self, level: int, kind: str, message: str, fields: dict[str, Any]) -> None:
        if self.rank and level == logging.INFO:
            level = logging.DEBUG
        if kind == "trouble" and self.host and "rank" not in fields:
            message = f"rank {self.rank} on {self.host}: {message}"
        elif self.rank:
            message = f"rank {self.rank}: {message}"
        logger.log(level, "%s", message)
        event = Event(kind, message, fields)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # whoever listens, an upload or a training goes on
                logger.exception("a listener to events failed")
