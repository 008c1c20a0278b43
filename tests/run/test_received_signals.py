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
