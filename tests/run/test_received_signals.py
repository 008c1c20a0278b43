"""What `vl run` makes of the signals that it is sent."""

from __future__ import annotations

import os
import signal

from vaultlayer_hf.run.received_signals import receive_signals


def test_one_request_by_two_ways_is_one() -> None:
    """A scheduler's SIGTERM that the job's script passes on, too, is one: a second one would end the run unsaved."""
    with receive_signals() as received:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert received.names == ["SIGTERM", "SIGINT", "SIGINT"]


def test_nohup_is_heeded() -> None:
    """A run that is started by `nohup` outlives its terminal: a SIGHUP that was ignored stays so; else it is noted."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, noted in ((signal.SIG_IGN, []), (signal.SIG_DFL, ["SIGHUP"])):
            signal.signal(signal.SIGHUP, handler)
            with receive_signals() as received:
                os.kill(os.getpid(), signal.SIGHUP)
            assert received.names == noted
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
