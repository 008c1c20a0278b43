"""What one rank knows and all have to heed: another writer's claim, and notices that the process will be ended.

Looked at after each step. What one rank asks for reaches all at the end of the same step (``Ranks.request``); there,
they decide together, once, whether one more checkpoint can be uploaded before the deadline. Then training ends, what
is under way is drained, and the process leaves with an exit code that says so.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.save.pacing import StepDecision
from vaultlayer_hf.session.stop.notice import MARGIN, Fit, Load, Notice, fit

if TYPE_CHECKING:
    from vaultlayer_hf.session.session import Session

_ROUND = 10.0
"""Seconds that ranks wait for each other when they decide how to end, at most."""


@dataclass(frozen=True)
class Ending:
    """How a training ends that was told to stop.

    Attributes:
        reason: in words.
        deadline: seconds since the epoch; None: there is none.
        code: exit code of the process.
    """

    reason: str
    deadline: float | None
    code: int

    def bound(self, timeout: float) -> float:
        """Return how long to wait now for something that may take ``timeout`` seconds otherwise."""
        if self.deadline is None:
            return timeout
        return max(0.0, min(timeout, self.deadline - MARGIN - time.time()))


def heed(session: Session, step: int) -> StepDecision | None:
    """Return what a word of any rank asks for at the end of ``step``; None: nothing. All ranks.

    Raises FencedError.
    """
    if session.ending is not None:
        return StepDecision(stop=session.ending.reason)
    agreed = session.ranks.request(step, _word(session))
    if agreed is None:
        return None
    kind, _, said = agreed.partition(" ")
    if kind == "fenced":
        session.stop_if_fenced(said)
        return StepDecision()
    where, _, word = said.partition(" ")
    notice = Notice.decode(word)
    text = f"{notice.what}; seen on rank {where}" if session.ranks.world_size > 1 else notice.what
    if kind == "save":
        session.watch.done(notice)
        if session.ranks.rank == 0:
            session.events.info(EventKind.PREEMPT, f"a save at step {step}: {text}", step=step)
        return StepDecision(save=True)
    return _end(session, step, notice, text)


def load_of(session: Session) -> Load:
    """Return what this rank's node has to do before its process can end."""
    uploader = session.uploader
    if uploader is None:
        return Load()
    return Load(uploader.unsent, session.part_bytes, uploader.rate, session.pacer.stall)


def _word(session: Session) -> str | None:
    """Return what this rank has to say to all."""
    uploader = session.uploader
    if uploader is not None and uploader.fenced is not None:
        return f"fenced {uploader.fenced}"
    found = session.watch.pending(time.time(), load_of(session).needed or 0.0, session.saved_at)
    if found is None:
        return None
    action, notice = found
    return f"{action} {session.ranks.rank}@{platform.node()} {notice.encode()}"


def _end(session: Session, step: int, notice: Notice, text: str) -> StepDecision:
    left = notice.deadline - time.time() if notice.deadline is not None else None
    wait = _ROUND if left is None else max(0.5, min(_ROUND, left / 4))
    try:
        found = session.ranks.decide(
            load_of(session), lambda loads: fit(loads, left), tag=f"end/{step}", timeout=wait
        )
    except RanksError as error:
        found = Fit(False, str(error))
    session.ending = Ending(text, notice.deadline, notice.code)
    what = "saves and stops" if found.save else "stops without another save"
    session.events.info(
        EventKind.PREEMPT,
        f"training {what} at step {step}, and what is under way is drained: {text}; {found.reason}",
        step=step,
        saves=found.save,
    )
    return StepDecision(save=found.save, stop=text)
