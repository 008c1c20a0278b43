"""Draining: what is under way when no step follows is waited for, within what ends the process; or given up, aloud."""

from __future__ import annotations

import math

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.observers import notify
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.stop.exits import INTERRUPTED
from vaultlayer_hf.session.stop.stopping import Stopping
from vaultlayer_hf.session.waiting import STALLED_SECONDS, WaitLimits, wait_for_uploads
from vaultlayer_hf.vault.snapshot import LOCAL
from vaultlayer_hf.vault.upload.uploader import Uploader


def drain(
    session: Session,
    stopping: Stopping,
    uploader: Uploader,
    *,
    for_others: float = math.inf,
    failed: bool = False,
) -> bool:
    """Wait for uploads at the end of a training; return whether all is in. What isn't is said as an error.

    Args:
        session: of this rank.
        stopping: knows how the training ends; takes note of what comes meanwhile.
        uploader: what is waited for.
        for_others: seconds at most where nothing but parts of other nodes is missing.
        failed: an exception is on its way out, so nobody waits while nothing moves.
    """
    uploader.end()

    def limits() -> WaitLimits:
        stopping.look_at_the_end()
        ending = stopping.ending
        if failed:
            return WaitLimits(stopping.bound(math.inf), STALLED_SECONDS, "training has failed")
        if ending is None:
            return WaitLimits()
        if ending.code == INTERRUPTED:  # there is no deadline, and a person waits: only for what moves
            stalled = STALLED_SECONDS if uploader.trouble is None else 0.0
            return WaitLimits(stalled=stalled, why="it was interrupted, and nothing moves")
        return WaitLimits(ending.bound(math.inf), why="the process is about to be ended")

    def say(text: str, trouble: bool) -> None:
        if trouble:  # also where a program's own logging shows warnings only
            session.events.warn(EventKind.TROUBLE, text)
        else:
            session.events.sign_of_life(text)

    why = wait_for_uploads(
        uploader,
        session.settings.flush_timeout,
        shown=session.progress,
        for_others=for_others,
        limits=limits,
        say=say,
        moved=lambda: notify(session, lambda observer: observer.sending(session)),
    )
    if why is not None:
        session.events.sum_up()  # ahead of it: a commit of before mustn't be the last that is read
        trouble = f": {uploader.trouble}" if uploader.trouble is not None else ""
        session.events.error(
            EventKind.TROUBLE,
            f"{uploader.newest_name} isn't in the vault, uploads are given up: {why}{trouble}; {uploader.exposure()}; "
            f"what waits stays in {session.output_dir / LOCAL}, and the next start on this disk goes on from it",
            unfinished=True,
        )
    return why is None
