"""What goes wrong with saves beside a training: said, and the next one waits; after a second time all do."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.save.abandoned import say_abandoned
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.capture.fit import Fit
from vaultlayer_hf.state.capture.memory import NoRoomError

_FAILURES = 2
"""Saves that may fail beside the training until it waits for all later ones."""


class AsyncTrouble:
    """The trouble of one training's saves.

    Args:
        session: whose events say it, on rank 0.

    Attributes:
        off: whether training waits for all later saves.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.off = False
        self._wait_next = False
        self._failures = 0

    def take(self) -> bool:
        """Return whether the save that is coming may run beside the training: not behind one that was lost. Once."""
        wait, self._wait_next = self._wait_next, False
        return not (self.off or wait)

    def say(self, fit: Fit) -> None:
        """Say once how saves run, and why, where that isn't what was asked for."""
        if fit.text and self._session.ranks.rank == 0:
            self._session.events.warn_once(f"async_save {fit.mode}", EventKind.NOTICE, fit.text)

    def say_reader(self, reader: str) -> None:
        """Say once which callback has each save wait for the checkpoint's folder; nothing where there is none."""
        if reader and self._session.ranks.rank == 0:
            reason = f"{reader} may read the checkpoint's folder"
            self._session.events.warn_once(
                "async_save on_save", EventKind.NOTICE, Fit("waiting", reason).text
            )

    def turn_off(self, reason: str) -> None:
        """Have training wait for all later saves."""
        self.off = True
        self.say(Fit("waiting", reason))

    def lose(self, name: str, step: int, failed: str) -> None:
        """Say that a captured checkpoint is lost; training waits for the next one's files. On all ranks alike."""
        reason = f"it couldn't be written beside the training: {failed}"
        then = "training goes on, and waits for the files of its next save"
        say_abandoned(self._session, name, reason, step=step, then=then)
        self._wait_next = True
        self._failures += 1
        if self._failures >= _FAILURES:
            self.turn_off(reason)


def in_words(error: Exception) -> str:
    """Return what failed, in one line."""
    text = str(error).partition("\n")[0]
    return text if isinstance(error, NoRoomError) else f"{type(error).__name__}: {text}"
