"""Events: everything that happens to a run's checkpoints, said once, in one line, through ``logging``.

The logger is ``vaultlayer_hf``. Where the program has set up logging (its root logger has a handler), the lines go
there, and its levels hold: those of the root logger, or one that it gave to ``vaultlayer_hf``. Where it hasn't, the
library's own handler writes to stderr from the level INFO on: a run has few events, and each matters. A notebook shows
stderr on red, as something wrong, so there what is no warning goes to stdout.
``VAULTLAYER_VERBOSITY`` (debug, info, warning, error or critical) wins over both.

What repeats with each save (commits, deletions, saves that a newer one replaced) fills no screen: the log has at most
one line a minute of it, which counts the rest. Listeners, and with them `vl logs --events`, get every one.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vaultlayer_hf.base.secrets import redact

logger = logging.getLogger("vaultlayer_hf")
_VARIABLE = "VAULTLAYER_VERBOSITY"
_LEVELS = ("debug", "info", "warning", "error", "critical")
_configured = False
_SPELL = 60.0
"""Seconds between two lines of what repeats."""


class _OwnHandler(logging.StreamHandler[Any]):
    """Writes to what is stderr, or stdout, at that time; only while the program has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return  # the record goes there too
        calm = record.levelno < logging.WARNING and type(sys.stderr).__module__.startswith("ipykernel.")
        self.stream = sys.stdout if calm else sys.stderr
        # A line that is written behind a bar of tqdm is glued to it, so bars are taken away meanwhile, without
        # tqdm's lock, which forked processes share: one that is killed while it holds it must stop nobody. So what
        # another thread does to its bar at this very moment may come in between, or be in the way.
        bars = sys.modules.get("tqdm.std")  # who shows bars has imported it
        with suppress(Exception), ExitStack() as stack:
            if bars is not None:
                with suppress(Exception):
                    stack.enter_context(bars.tqdm.external_write_mode(file=self.stream, nolock=True))
            super().emit(record)


def _configure() -> None:
    """Give the library's logger its own handler, and the level that the environment names."""
    global _configured
    if _configured:
        return
    _configured = True
    if not logger.handlers:
        handler = _OwnHandler()
        handler.setFormatter(logging.Formatter("[vaultlayer] %(message)s"))
        logger.addHandler(handler)
    named = os.environ.get(_VARIABLE, "").strip()
    if named.lower() in _LEVELS:
        logger.setLevel(named.upper())
    elif named:
        logger.warning(
            "%s=%r is no level, so it has no effect: use one of %s", _VARIABLE, named, ", ".join(_LEVELS)
        )


def log(level: int, message: str) -> None:
    """Log a line of the library: from INFO on where nobody has set up logging, else as the program's levels say.

    The root logger's level is WARNING until somebody sets it, so without this INFO would be lost where nobody has. To
    give our own logger the level INFO instead would overrule the root's, which a program may set later than we start.
    """
    root = logging.getLogger()
    nobody = logger.level == logging.NOTSET and root.level == logging.WARNING and not root.handlers
    if logger.isEnabledFor(level) or (nobody and level >= logging.INFO and root.manager.disable < level):
        file, line, function, _ = logger.findCaller(stacklevel=2)
        logger.handle(logger.makeRecord(logger.name, level, file, line, "%s", (message,), None, function))


class EventKind(StrEnum):
    """The kinds of events, each with the sentence that says what has happened.

    A member equals its value, so ``event.kind == "commit"`` is as good as ``EventKind.COMMIT``.
    """

    sentence: str

    CLAIM = "claim", "This process has become the vault's one writer."
    FRESH = "fresh", "The vault holds no checkpoint, so the run starts at step 0."
    RESTORE = "restore", "A checkpoint has been fetched from the vault and verified; the run goes on from it."
    WAITING = "waiting", "This process waits for its node's first process to restore the checkpoint."
    WALK_BACK = "walk-back", "A commit can't be used, for the reason given, and the one before it is tried."
    ADOPT = (
        "adopt",
        "A complete checkpoint on this disk is newer than the newest commit; the run goes on from it.",
    )
    INEXACT = "inexact", "The numbers of the resumed run may differ from those of an unbroken one."
    CADENCE = "cadence", "The interval between saves has been chosen, or has changed."
    PART = "part", "A node other than the first has uploaded its part of a checkpoint."
    COMMIT = "commit", "A checkpoint is in the vault, complete and durable: a restart can go on from it."
    ABANDON = "abandon", "A checkpoint that was saved won't be committed; training goes on."
    RETIRE = "retire", "An old checkpoint has been deleted from the vault, as the settings ask."
    TROUBLE = "trouble", "Something fails for now, and is tried again or left out; training goes on."
    RECOVERED = "recovered", "The vault can be written again after a time of trouble."
    NOTICE = "notice", "Something that the user should know of: an argument that has no effect, a limit."
    PREEMPT = "preempt", "The machine is about to be taken away, or the process was told to end."
    FENCED = "fenced", "A newer writer has claimed the vault, so this one writes no more."
    STOPPED = "stopped", "Training has stopped before its last step, and the next start goes on from there."
    FINISH = "finish", "Training has reached its end, and the vault says so."
    FINISHED = "finished", "The run was over before this start, so nothing is left to train."

    def __new__(cls, value: str, sentence: str) -> EventKind:
        """Make a member of its value and its sentence."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


_COUNTED_AS = {
    (logging.INFO, EventKind.COMMIT): "committed",
    (logging.INFO, EventKind.RETIRE): "deleted as no longer needed",
    (logging.INFO, EventKind.ABANDON): "skipped for newer ones",
    (logging.WARNING, EventKind.ABANDON): "abandoned",
}
"""What repeats with each save, by the level of its lines, and the words in which it is counted."""


@dataclass
class _Repeated:
    """What repeats at one level, as far as the log has it.

    Attributes:
        next_line: when (by the clock) another line of it may come.
        untold: how often each kind was left out since the last line.
        last_commit: the newest of these, where that is a commit; empty otherwise.
    """

    next_line: float = -math.inf
    untold: Counter[EventKind] = field(default_factory=Counter)
    last_commit: str = ""


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: what has happened; compares equal to its text, such as ``"commit"``.
        message: one line for a person.
        fields: the same for a program: step, token, seconds, bytes, reason and the like.
    """

    kind: EventKind
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


class Events:
    """Logs each event once and hands it to the listeners. Safe to call from several threads.

    ``clock``: seconds that never go back; another one only in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        _configure()
        self._clock = clock
        self._repeated = {logging.INFO: _Repeated(), logging.WARNING: _Repeated()}
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

    def info(self, kind: EventKind, message: str, **fields: Any) -> None:
        """Report something that is as it should be."""
        self._emit(logging.INFO, kind, message, fields)

    def warn(self, kind: EventKind, message: str, **fields: Any) -> None:
        """Report something that somebody should know of or act on."""
        self._emit(logging.WARNING, kind, message, fields)

    def error(self, kind: EventKind, message: str, **fields: Any) -> None:
        """Report what is lost or missing at the end, and that nothing else tells of."""
        self._emit(logging.ERROR, kind, message, fields)

    def repeated(self, kind: EventKind, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Report what comes with each save: to listeners as ever, in the log now and then.

        Args:
            kind, message, fields: as elsewhere.
            level: ``logging.INFO`` of a commit, a deletion or a save that was skipped; ``logging.WARNING`` of a save
                that a store in trouble has not taken.
        """
        of_level = self._repeated[level]
        with self._lock:
            told = self._clock() >= of_level.next_line
            text = message + self._counts(level) if told else message
            if told:
                of_level.next_line = self._clock() + _SPELL
                of_level.untold.clear()
            else:
                of_level.untold[kind] += 1
            if kind == EventKind.COMMIT:
                of_level.last_commit = "" if told else message
        self._emit(level if told else logging.DEBUG, kind, text, fields, plain=message)

    def sum_up(self) -> None:
        """Log what ``repeated`` has left out since its last lines: the last commit, and counts."""
        for level, of_level in self._repeated.items():
            with self._lock:
                if not of_level.untold:
                    continue
                last, of_level.last_commit = of_level.last_commit, ""
                of_level.untold[EventKind.COMMIT] -= bool(last)
                text = (
                    last + self._counts(level)
                    if last
                    else f"since the last line on saves: {self._count_text(level)}"
                )
                of_level.untold.clear()
            log(logging.DEBUG if self.rank else level, text)

    def _counts(self, level: int) -> str:
        said = self._count_text(level)
        return f" (and since the last such line: {said})" if said else ""

    def _count_text(self, level: int) -> str:
        untold = self._repeated[level].untold
        counts = ((untold[kind], word) for (one, kind), word in _COUNTED_AS.items() if one == level)
        return ", ".join(f"{count} {word}" for count, word in counts if count > 0)

    def sign_of_life(self, message: str) -> None:
        """Log what is no event of a checkpoint's, such as that something is waited for, on whichever rank."""
        log(logging.INFO, f"rank {self.rank}: {message}" if self.rank else message)

    def warn_once(self, cause: str, kind: EventKind, message: str, **fields: Any) -> None:
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

    def _emit(
        self, level: int, kind: EventKind, message: str, fields: dict[str, Any], *, plain: str | None = None
    ) -> None:
        """``plain``: the message for listeners where the log's says more."""
        if self.rank and level == logging.INFO:
            level = logging.DEBUG
        if kind == EventKind.TROUBLE and self.host and "rank" not in fields:
            message = f"rank {self.rank} on {self.host}: {message}"
        elif self.rank:
            message = f"rank {self.rank}: {message}"
        message = redact(message)
        log(level, message)
        told = {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}
        event = Event(kind, message if plain is None else redact(plain), told)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # whoever listens, an upload or a training goes on
                logger.exception("a listener to events failed")
