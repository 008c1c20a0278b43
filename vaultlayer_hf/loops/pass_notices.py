"""What is said of passes through the data that a resume doesn't do as an unbroken run does."""

from __future__ import annotations

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.state.data.placed import in_doubt

OF_TWO_AT_ONCE = (
    "a pass through the data goes on behind another one that was begun within it by batches() or steps(), and the "
    "place in two of them can't be kept: go through the inner loader itself, as for an evaluation, or draw from it by "
    "Checkpointer.stream(loader)"
)


def say_further_pass(events: Events) -> None:
    """Say that an epoch goes on behind the first of its passes."""
    events.warn_once(
        "further pass",
        EventKind.NOTICE,
        "this run goes on within an epoch behind the first of its passes through data: the code of the epoch ahead "
        "of the pass that was under way runs again",
    )


def say_given_up(events: Events) -> None:
    """Say that an epoch has ended ahead of the pass that a checkpoint was saved in."""
    left = (
        "this run went on within an epoch, and the script has ended that epoch ahead of the pass through data that was "
        "under way: what was left of the pass isn't trained"
    )
    events.warn(EventKind.INEXACT, in_doubt([left]))


def say_tail(events: Events, tail: str) -> None:
    """Say what a checkpoint leaves undone that was saved in an epoch's code behind its batches.

    ``tail``: ``"stopped"``, or ``"saved"`` by the script itself, perhaps as the last of the epoch; empty for any other.
    """
    where = "in the code of an epoch that follows its batches: what of that code was still to come isn't done"
    if tail == "stopped":
        events.warn(EventKind.INEXACT, in_doubt([f"the run was told to end {where}"]))
    elif tail:
        events.info(EventKind.NOTICE, f"the checkpoint was saved by save() {where}")


def run_is_over(session: Session, step: int, *, left: bool) -> str:
    """Return what is said where a run is over that is started again; ``left``: by leaving its loop over epochs."""
    if left:
        return (
            f"this run is over, at step {step}: its loop over epochs was left early, so epochs() gives none, however "
            f"many are asked for; to go on there, with more patience, say, name {session.address.uri}@{step}; to train "
            "anew, name another vault"
        )
    return (
        f"this run is over, at step {step}: a loop that asks for no more steps trains none; to train anew, name "
        "another vault"
    )


def say_step_again(events: Events) -> None:
    """Say that a step is done once more, which an epoch has ahead of the pass that was under way."""
    why = (
        "this run went on within a pass of an epoch, and the epoch has a step() ahead of that pass: a resume runs that "
        "code again, so the step is trained, and counted, once more"
    )
    events.warn_once("step again", EventKind.INEXACT, in_doubt([why]))


def say_code_again(session: Session) -> None:
    """Say that code runs once more which the script has behind a pass of ``steps`` that was over before this start."""
    if session.ranks.rank == 0:
        session.events.warn_once(
            "code again",
            EventKind.NOTICE,
            "steps() was called for each epoch by itself: where an epoch is over it gives no batches, and the code "
            "behind it (a schedule's step, a mean over the epoch) ran once more. epochs() and batches() pass over both",
        )
