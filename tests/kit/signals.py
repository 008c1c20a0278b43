"""Signals as they are at a terminal."""

from __future__ import annotations

import signal
import threading


def as_at_a_terminal() -> None:
    """Let SIGINT and SIGQUIT mean what they mean there: shells start what is in the background with both ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
