"""The signals that `vl run` itself is sent: noted, instead of ending it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaultlayer_hf.run.engines.base import ENDING, ReceivedSignals

_NOTED = (*ENDING, "SIGUSR1", "SIGUSR2")
_TWICE = 2.0
"""Seconds within which a second SIGTERM is the first one, come by another way: a scheduler sends it to every process of
a job, and the job's script passes on what it got. Counted as two, it would end the program at once, without a save."""


@contextmanager
def receive_signals() -> Iterator[ReceivedSignals]:
    """Note the signals that this process is sent within the block, instead of dying of them.

    A SIGHUP that was ignored before stays ignored: `nohup` asks for that, so that a run outlives its terminal.
    """
    received = ReceivedSignals()
    last = -_TWICE

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if number == signal.SIGTERM:
            before, last = last, time.monotonic()
            if last - before < _TWICE:
                return
        received.names.append(signal.Signals(number).name)

    before = {
        name: signal.signal(signal.Signals[name], note)
        for name in _NOTED
        if name != "SIGHUP" or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    }
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)
