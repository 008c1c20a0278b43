"""What is said of a checkpoint that won't be committed, wherever its save has failed."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session


def say_abandoned(
    session: Session, name: str, reason: str, *, step: int | None = None, then: str = "training goes on"
) -> None:
    """Say that a checkpoint won't be committed, why, and what would be lost now. On rank 0, for all ranks.

    Args:
        session: of this rank.
        name: of the checkpoint's folder.
        reason: why not.
        step: at which it was saved; None where that isn't known.
        then: what the training does now.
    """
    exposure = f"; {session.uploader.exposure()}" if session.uploader is not None else ""
    fields = {"reason": reason} if step is None else {"step": step, "reason": reason}
    session.warn_all(EventKind.ABANDON, f"{name} isn't committed, {then}: {reason}{exposure}", **fields)
