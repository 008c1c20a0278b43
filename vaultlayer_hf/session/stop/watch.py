"""The watch for notices while a training runs: signals, and the metadata server of the cloud, off the main thread."""

from __future__ import annotations

import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import CodeType
from typing import Any

from vaultlayer_hf.base.cells import at_end_of_cells, shell
from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.session.stop.clouds import NoticeSource, sources
from vaultlayer_hf.session.stop.exits import INTERRUPTED, PREEMPTED
from vaultlayer_hf.session.stop.launchers import deadly_signals, short_shutdown
from vaultlayer_hf.session.stop.notice import LEAD, Action, Notice
from vaultlayer_hf.session.stop.signals import Traps

_TICK = 1.0
"""Seconds between two looks whether it is time to leave an evaluation."""
_TRIES = 3
"""How often a metadata server that has never answered is asked."""


class NoticeWatch:
    """Keeps what announces the end of this process, from ``open`` to ``close``. On the training thread.

    Args:
        signals: names of signals to catch.
        grace: seconds from a signal, or a notice that names no time, to the kill that follows.
        notices: ``auto``, ``none``, or names of clouds; looked at by one rank of each host.
        events: where to say what comes.
    """

    def __init__(self, signals: Sequence[str], grace: float, notices: str, events: Events) -> None:
        self._grace = grace
        self._notices = notices
        self._events = events
        self._found: dict[tuple[str, str], Notice] = {}
        self._done: set[tuple[str, str]] = set()
        self._words: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()  # may be put into by a handler
        self._interruption: type[BaseException] | None = None
        self._traps = Traps(signals, self._caught, self._hurry, self._interrupt)
        self._signals = signals
        self._thread: threading.Thread | None = None
        self._leave_cells: Callable[[], None] = lambda: None
        self.hurried = False
        """A second SIGINT has asked to end at once."""
        self.over = False
        """No step follows: uploads are waited for."""

    def open(self, within: CodeType | None = None) -> None:
        """Begin to watch. Safe to call again. ``within``: code that runs for as long as the training does."""
        if self._thread is not None:
            return
        self.over = False
        if not self._traps.set(within) and self._signals:
            self._events.info(
                EventKind.NOTICE,
                f"{', '.join(self._signals)} won't be seen: training doesn't run on the main thread, and Python "
                "handles signals there",
            )
        if os.environ.get("RANK", "0") == "0":
            if deadly := deadly_signals(self._signals, os.environ):
                self._events.warn_once("launcher", EventKind.NOTICE, deadly)
            if short := short_shutdown(self._grace, os.environ):
                self._events.info(EventKind.NOTICE, short)
        looks = sources(self._notices) if os.environ.get("LOCAL_RANK", "0") == "0" else []
        self._thread = threading.Thread(target=self._run, args=(looks,), name="vaultlayer-watch", daemon=True)
        self._thread.start()
        # A training whose cell broke off leaves no handler behind.
        self._leave_cells = at_end_of_cells(lambda _: self.close())

    def close(self, *_: Any, leaving: bool = False) -> None:
        """Stop watching, and put the handlers back. ``leaving``: the process ends now, with a code of its own."""
        self._leave_cells()
        self._traps.release(leaving=leaving and shell() is None)
        if self._thread is not None:
            self._words.put(None)
            self._thread = None

    @property
    def opened(self) -> bool:
        """Whether it watches."""
        return self._thread is not None

    def forget(self) -> None:
        """In a forked child: it hasn't come for this process. The traps forget by themselves."""
        self._found.clear()
        self._thread = self._interruption = None

    def hand_back(self) -> None:
        """Stop watching a training that nobody stops any more, and let signals do what they did before it. Once.

        A signal that was caught, and that training hasn't been stopped for, is raised again: it would be lost.
        """
        if self._thread is None:
            return
        self.close()
        if threading.current_thread() is threading.main_thread():
            for name in self._signals:
                if any(notice.source == name for notice in list(self._found.values())):
                    signal.raise_signal(signal.Signals[name])

    def pending(self, now: float, needed: float, saved: float) -> tuple[Action, Notice] | None:
        """Return what to do about which notice at ``now``; the arguments are those of ``Notice.action``."""
        found = []
        for key, notice in list(self._found.items()):
            action = notice.action(now, needed, saved)
            if action == "stop" or (action == "save" and key not in self._done):
                found.append((action, notice))
        # What stops goes first, and of these what comes first.
        return min(found, key=lambda pair: (pair[0] != "stop", pair[1].deadline or 0.0), default=None)

    @contextmanager
    def interrupting(self, error: type[BaseException]) -> Iterator[None]:
        """Raise an error out of what runs inside, wherever that is, once a notice says to stop now.

        Only where training runs on the main thread, and catches a signal: Python has no other way to leave a wait.
        ``holding_off`` inside it puts that off.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._interruption = error
        try:
            self._interrupt()
            yield
        finally:
            self._interruption = None

    @contextmanager
    def holding_off(self) -> Iterator[None]:
        """Raise nothing by ``interrupting`` while what runs inside does; what was due is raised behind it."""
        error, self._interruption = self._interruption, None
        yield
        self._interruption = error
        self._interrupt()

    def _interrupt(self) -> None:
        """Raise what ``interrupting`` has set, where it is time to stop. On the main thread."""
        error = self._interruption
        if error is not None and self._stops_now():
            self._interruption = None
            raise error

    def _stops_now(self) -> bool:
        found = self.pending(time.time(), 0.0, math.inf)
        return found is not None and found[0] == "stop"

    def done(self, notice: Notice) -> None:
        """Note that a save was asked for because of a notice."""
        self._done.add(_key(notice))

    def _caught(self, name: str) -> None:
        """Take note of a signal. Inside a handler."""
        now = time.time()
        if name == "SIGINT":
            now_does = "uploads that stand still are given up" if self.over else "training saves and stops"
            what = f"Ctrl-C: {now_does}; press it again to end at once, without that"
            self._note(Notice(name, what, code=INTERRUPTED, seen=now))
        else:
            early = ", two minutes ahead of that at the latest" if self._grace > LEAD else ""
            what = f"{name}: this process is to end within {self._grace:g} s (grace), so training saves and stops"
            what += early
            self._note(Notice(name, what, now + self._grace, code=PREEMPTED, seen=now))

    def _hurry(self) -> None:
        self.hurried = True

    def _note(self, notice: Notice) -> None:
        if _key(notice) not in self._found:
            self._found[_key(notice)] = notice
            self._words.put(notice)

    def _timed(self, notice: Notice, source: NoticeSource) -> Notice:
        """Return a cloud's notice with when it was seen, and the deadline where only that it comes is known."""
        now, deadline = time.time(), notice.deadline
        if notice.stops and deadline is None:
            deadline = now + max(0.0, self._grace - source.interval)  # so late it may have been seen
        return replace(notice, seen=now, deadline=deadline)

    def _run(self, looks: list[NoticeSource]) -> None:
        """Say what comes, and look for notices where there are any."""
        next_look = dict.fromkeys(range(len(looks)), 0.0)
        failed = dict.fromkeys(next_look, 0)
        while True:
            timeout = max(0.0, min(next_look.values()) - time.monotonic()) if next_look else None
            if self._found:
                # What the clouds say comes without a signal, and a far deadline comes near without one.
                if self._interruption is not None and self._stops_now():
                    self._traps.wake()
                timeout = _TICK if timeout is None else min(timeout, _TICK)
            try:
                notice = self._words.get(timeout=timeout)
                if notice is None:
                    return
                self._events.warn(
                    EventKind.PREEMPT, notice.what, source=notice.source, deadline=notice.deadline
                )
                continue
            except queue.Empty:
                pass
            for number in [number for number, due in next_look.items() if due <= time.monotonic()]:
                source = looks[number]
                try:
                    for found in source.look():
                        self._note(self._timed(found, source))
                    failed[number] = -1
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    failed[number] += failed[number] >= 0
                    if failed[number] == _TRIES:
                        del next_look[number]
                        self._events.info(
                            EventKind.NOTICE, f"{source.name}'s notices aren't seen: {_why(source, error)}"
                        )
                        continue
                next_look[number] = time.monotonic() + source.interval


def _key(notice: Notice) -> tuple[str, str]:
    return notice.source, notice.what


def _why(source: NoticeSource, error: Exception) -> str:
    hint = "; in a container its hop limit has to be 2" if source.name == "AWS" else ""
    return f"its metadata server can't be asked ({error}){hint}"
