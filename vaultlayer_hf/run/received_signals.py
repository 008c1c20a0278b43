"""The signals that `vl run` itself is sent: noted, instead of ending it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaultlayer_hf.run.engines.base import ENDING, ReceivedSignals

_NOTED = (*ENDING, "SIGUSR1", "SIGUSR2")


@contextmanager
def receive_signals() -> Iterator[ReceivedSignals]:
    """Note the signals that this process is sent within the block, instead of dying of them."""
    received = ReceivedSignals()

    def note(number: int, frame: FrameType | None) -> None:
        received.names.append(signal.Signals(number).name)

    before = {name: signal.signal(signal.Signals[name], note) for name in _NOTED}
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)
