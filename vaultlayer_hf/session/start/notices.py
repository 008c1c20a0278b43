"""What a start says of the checkpoint that it has chosen."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.start.choice import StartChoice


def say_choice(session: Session, choice: StartChoice) -> None:
    """Say what ``@STEP`` comes to."""
    named = choice.named
    if named is None:
        return
    if choice.continues:
        newest = choice.candidates[0]
        session.warn_all(
            EventKind.NOTICE,
            f"{session.address}: this run went back to step {named.step} before, and goes on from what it has trained "
            f"since, step {newest.step}; `vl pull {session.address}` copies step {named.step} out",
            step=newest.step,
        )
    elif choice.left:
        names = ", ".join(f"{commit.name} (log entry {commit.number})" for commit in choice.left)
        session.warn_all(
            EventKind.NOTICE,
            f"{session.address}: the run goes back to step {named.step} and leaves {names} behind; they are kept while "
            "it goes on from there. The next start of the same command goes on from the newest that is trained now",
            step=named.step,
        )
