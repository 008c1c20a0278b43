"""How a training process ends that was told to stop, and the exit codes by which a supervisor can tell why."""

from __future__ import annotations

from typing import Any, NoReturn

from vaultlayer_hf.base import short_traceback

PREEMPTED = 75
"""Told to stop, with its state in the vault as far as time allowed: start it again (EX_TEMPFAIL of sysexits.h)."""
INTERRUPTED = 130
"""Stopped by a person, with Ctrl-C: don't start it again (as shells report SIGINT)."""


class Preempted(SystemExit):
    """Ends the process with ``PREEMPTED``, as sys.exit() does: no traceback, and a notebook's kernel lives on."""

    def __init__(self, reason: str) -> None:
        super().__init__(PREEMPTED)
        self.reason = reason

    def __str__(self) -> str:
        return f"{PREEMPTED} ({self.reason})"


def _interrupted() -> KeyboardInterrupt:
    """Return what ends a training that a person stopped with Ctrl-C. Printed short: nothing went wrong.

    Of no class of its own: for KeyboardInterrupt itself Python ends a program by SIGINT, which a shell's loop heeds.
    """
    error: Any = KeyboardInterrupt(
        "training was stopped by Ctrl-C; started again, it goes on from what was saved"
    )
    error.short = True
    short_traceback.install()  # a tracker, set up as training began, may have put its own hook in front
    stopped: KeyboardInterrupt = error
    return stopped


def leave(reason: str, code: int) -> NoReturn:
    """End a training that was told to stop, once its state is safe. Raises Preempted or KeyboardInterrupt."""
    if code == INTERRUPTED:
        raise _interrupted()
    raise Preempted(reason)
