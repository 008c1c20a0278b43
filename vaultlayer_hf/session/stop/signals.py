"""Traps for the signals that announce an end: they only take note, and call the handlers that were there before.

Python runs handlers on the main thread, between two of its instructions: one that is deep in a kernel or waits for
another rank takes note when it comes back. Traps can be set on the main thread only.

A child that is forked while they are set has them, too. SIGTERM ends it as it does without us: it is how whoever made
the child ends it (``Process.terminate()``). Any other one is sent to all processes of a job at once, by a terminal or
by Slurm, and means the training, which goes on for a while and needs its children, such as DataLoader's workers: they
let it pass, and a second SIGINT does what it did before. (Those workers set a handler of their own for SIGTERM.)
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import CodeType, FrameType
from typing import Any

from vaultlayer_hf.base.forks import forget_in_children


class Traps:
    """Signals that are caught while a training runs.

    Args:
        names: of signals, such as ``SIGTERM``.
        note: called with the name of each signal that comes, but for what ``hurry`` is called for. It runs inside
            a handler: it may only leave a word.
        hurry: called ahead of KeyboardInterrupt when a second SIGINT asks to end at once.
        behind: called last in a handler. What it raises, the training thread raises where it is.
    """

    def __init__(
        self,
        names: Sequence[str],
        note: Callable[[str], None],
        hurry: Callable[[], None] = lambda: None,
        behind: Callable[[], None] = lambda: None,
    ) -> None:
        self._numbers = [signal.Signals[name] for name in names]
        self._note = note
        self._hurry = hurry
        self._behind = behind
        self._woken = False
        self._before: dict[int, Any] = {}
        self._below: dict[int, Any] = {}  # what was there, behind a training: somebody may still hold a trap
        self._interrupted = False
        self._leaving = False
        self._inherited = False
        self._within: tuple[CodeType, int] | None = None
        forget_in_children(self.forget)

    def set(self, within: CodeType | None = None) -> bool:
        """Set the traps; return whether that can be done here. Safe to call again.

        ``within``: code that runs for as long as the training does. A signal that comes when it doesn't run any more
        finds the traps left behind by a training that broke off: it does what it did before.
        """
        frame = sys._getframe()
        self._within = _running(within, frame)
        if threading.current_thread() is not threading.main_thread():
            return False
        self._leaving = self._inherited = False
        for number in self._numbers:
            # Those of a training that broke off (a cell run again): chained, each would hand the signal on for ever.
            while (left := _traps(signal.getsignal(number))) and left is not self and left._is_left(frame):
                left.release()
            current = signal.getsignal(number)
            # Ignored on purpose (nohup, a shell's background job): it stays so. None: not Python's, can't be chained.
            if current in (signal.SIG_IGN, None):
                continue
            if current == self._caught:  # by whoever had replaced it, perhaps
                self._before.setdefault(number, self._replaced_by(number))
                continue
            self._before[number] = current
            signal.signal(number, self._caught)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # on purpose: it stays so
        _held_back.update({signal.SIGTERM} & self._before.keys() - blocked)
        return True

    @property
    def replaced(self) -> dict[int, Any]:
        """The handlers in whose places the traps are, by the signals' numbers."""
        return dict(self._before)

    def release(self, *, leaving: bool = False) -> None:
        """Put the handlers back that were there before, but for those that somebody has replaced meanwhile.

        ``leaving``: the process is about to end with a code of its own, and a launcher that sees one rank end
        sends SIGTERM to the others: it is swallowed from now on, so that they end with that code, too.
        """
        self._leaving = leaving
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in {**self._below, **self._before}.items():
            if leaving and number != signal.SIGINT:
                continue
            if signal.getsignal(number) == self._caught:
                signal.signal(number, handler)
            self._below.setdefault(number, handler)
            self._before.pop(number, None)
        if _traps(signal.getsignal(signal.SIGTERM)) is None:
            _held_back.clear()

    def forget(self) -> None:
        """In a forked child: nothing that comes from now on is noted."""
        if not self._before:
            return
        self._inherited, self._leaving, self._woken = True, False, False
        if signal.getsignal(signal.SIGTERM) == self._caught:
            signal.signal(signal.SIGTERM, self._below_all_traps(signal.SIGTERM))

    def _caught_in_child(self, number: int, frame: FrameType | None) -> None:
        """Do what was done before it, where that is a function; SIGINT only when it comes again."""
        before = self._below_all_traps(number)
        first, self._interrupted = not self._interrupted, self._interrupted or number == signal.SIGINT
        if callable(before) and not (number == signal.SIGINT and first):
            before(number, frame)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._leaving:
            return
        if self._inherited:
            self._caught_in_child(number, frame)
            return
        if number not in self._before or self._outlived(frame):
            self._caught_behind(number, frame)
            return
        before: Any = self._before.get(number)
        chained = callable(before) and before is not signal.default_int_handler
        if number == signal.SIGINT and self._interrupted:
            self._hurry()
            self.release()
            if chained:
                before(number, frame)
            raise KeyboardInterrupt
        if self._woken:
            self._woken = False
            self._behind()
            return
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._note(signal.Signals(number).name)
        if chained:
            before(number, frame)
        self._behind()

    def _caught_behind(self, number: int, frame: FrameType | None) -> None:
        """Behind the training: have done what was done before it.

        A handler that was set during the training stays, and may hand on to the trap that it has replaced. Raised
        again the signal would come back to it for ever: what is called is what the trap had replaced itself. That is
        nothing where no function was there.
        """
        first = signal.getsignal(number) == self._caught
        self.release()
        below = self._below.get(number)
        if first:
            os.kill(os.getpid(), number)
        elif callable(below):
            below(number, frame)

    def wake(self) -> None:
        """Have ``behind`` called on the main thread, also out of a wait such as time.sleep(). On any thread.

        A signal that is caught here is the only thing that interrupts such a wait; it isn't noted. Nothing is done
        where no signal is caught.
        """
        for number in list(self._before)[:1]:
            self._woken = True
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _replaced_by(self, number: int) -> Any:
        """Return the handler in whose place the trap of a signal is, or was."""
        return self._before.get(number, self._below.get(number, signal.SIG_DFL))

    def _below_all_traps(self, number: int) -> Any:
        """Return the handler that was there before any training: a second one's traps stand on those of the first."""
        handler = self._replaced_by(number)
        while (traps := _traps(handler)) is not None:
            handler = traps._replaced_by(number)
        return handler

    def _is_left(self, frame: FrameType | None) -> bool:
        return self._inherited or self._outlived(frame)

    def _outlived(self, frame: FrameType | None) -> bool:
        if self._within is None:
            return False
        code, call = self._within
        return not any(caller.f_code is code and id(caller) == call for caller in _callers(frame))


def _traps(handler: Any) -> Traps | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Traps) else None


def _running(code: CodeType | None, frame: FrameType | None) -> tuple[CodeType, int] | None:
    """Return ``code`` and which of its calls it is that runs; a kept frame would keep a model alive."""
    return (
        next(((code, id(caller)) for caller in _callers(frame) if caller.f_code is code), None)
        if code
        else None
    )


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


_held_back: set[signal.Signals] = set()
"""What isn't delivered while a process forks. Python drops a signal that it handles and that a child gets before it has
come to its first instruction: ``terminate()`` right behind ``start()`` would end nothing on a busy machine."""

if hasattr(os, "register_at_fork"):
    # Functions in C, so that what another handler raises meanwhile leaves nothing blocked. Registered behind those of
    # forks.py: a child's handlers are put back by then.
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _held_back),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _held_back),
        after_in_child=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _held_back),
    )
