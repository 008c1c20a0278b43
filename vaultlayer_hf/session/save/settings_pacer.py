"""The pacer that a session's settings ask for, with what earlier attempts in the vault's log have come to."""

from __future__ import annotations

import threading

from vaultlayer_hf.base.spans import parse_cadence
from vaultlayer_hf.session.save.pacing import Pacer
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.vault.log.history import VaultHistory, read_history
from vaultlayer_hf.vault.log.log import Log


def pacer_of(session: Session) -> Pacer:
    """Return the pacer that a session's settings ask for."""
    past = _HistoryReader(session)

    def upload_seconds() -> float:
        return session.uploader.figures.seconds_each if session.uploader is not None else 0.0

    return Pacer(
        parse_cadence(session.settings.save_every),
        session.ranks,
        session.events,
        max_loss=session.settings.loss,
        upload_seconds=upload_seconds,
        history=past.known,
    )


class _HistoryReader:
    """The history of a vault, read beside training: it costs requests, and is only worth having."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread: threading.Thread | None = None
        self._found = VaultHistory()

    def known(self) -> VaultHistory:
        """Return what is known by now; the first call begins to read."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="vaultlayer-history", daemon=True)
            self._thread.start()
        return self._found

    def _read(self) -> None:
        try:
            self._found = read_history(Log(self._session.access.bare), self._session.entered.token)
        except Exception:  # whatever it is, there is a default
            pass
