"""A save of a run whose weights or loss are nan: it is said, and its last finite checkpoint is kept."""

from __future__ import annotations

import contextlib

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.base.files import remove_file
from vaultlayer_hf.session.save.plan import Save
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.vault.log.entry import Commit
from vaultlayer_hf.vault.log.finite import NAME, write_nonfinite

_SAID = "nonfinite"


def note_nonfinite(session: Session, save: Save, what: str) -> None:
    """Note in a checkpoint's folder that it isn't finite, and say so once. All ranks, which know ``what`` alike."""
    if not what:
        session.nonfinite.discard(save.step)
        session.events.forget(_SAID)  # a loss may recover, and be lost again
        if session.leads_node:
            with contextlib.suppress(OSError):  # a script that saves into the same folder again
                remove_file(save.folder / NAME)
        return
    session.nonfinite.add(save.step)
    if session.ranks.rank == 0:
        newest = _newest_finite(session)
        there = (
            f"{newest.name} is the newest finite one in the vault, and is kept however many follow: end this run "
            f"and go back with {session.address.uri}@{newest.step}"
            if newest is not None
            else "there is no finite one in the vault yet"
        )
        session.events.warn_once(
            _SAID,
            EventKind.NOTICE,
            f"{save.folder.name} isn't finite: {what}. Training goes on, and what it trains is probably lost; {there}",
            step=save.step,
            reason=what,
        )
    if session.leads_node and save.folder.is_dir():
        try:
            write_nonfinite(save.folder, what)
        except OSError as error:
            session.events.warn_once(
                "nonfinite isn't noted",
                EventKind.TROUBLE,
                f"{save.folder.name}: that it isn't finite can't be noted: {error}",
            )


def _newest_finite(session: Session) -> Commit | None:
    """Return the newest live commit on the run's way that isn't known to be of a nan."""
    on_the_way = [commit for commit in session.state.commits if not commit.left_behind]
    return next((commit for commit in reversed(on_the_way) if commit.step not in session.nonfinite), None)
