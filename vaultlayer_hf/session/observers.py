"""Observers: told of each training of this process, such as by `vl run`, which reports loops of a script's own."""

from __future__ import annotations

from collections.abc import Callable

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session


class TrainingObserver:
    """Told of each training of this process, on its training thread. Override what is of interest.

    What a method raises is reported once, and never ends a training.
    """

    def began(self, session: Session, step: int) -> None:
        """Training begins, behind ``step``."""

    def stepped(self, session: Session, step: int) -> None:
        """``step`` is done."""

    def flushing(self, session: Session) -> None:
        """No more steps: uploads are waited for."""

    def sending(self, session: Session) -> None:
        """Bytes move while uploads are waited for."""

    def finished(self, session: Session, step: int) -> None:
        """The run is done, at ``step``."""

    def closed(self, session: Session) -> None:
        """Nothing is under way any more; also after a training that failed, and once more for each ``close``."""


_observers: list[TrainingObserver] = []


def observe(observer: TrainingObserver) -> None:
    """Have an observer told of every training of this process, those under way included."""
    _observers.append(observer)


def notify(session: Session, call: Callable[[TrainingObserver], None]) -> None:
    """Call every observer for a session's training; never raises."""
    for observer in list(_observers):
        try:
            call(observer)
        except Exception as error:
            session.events.warn_once(
                f"observer {type(observer).__name__}",
                EventKind.TROUBLE,
                f"unexpected {type(error).__name__} in {type(observer).__name__}, training goes on: {error}",
            )
