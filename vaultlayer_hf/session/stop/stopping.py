"""What stops a training: another writer's claim, and notices that the process will be ended.

Looked at after each step. What one rank asks for reaches all at the end of the same step (``Ranks.request``); there,
they decide together, once, whether one more checkpoint can be uploaded before the deadline. Then training ends, what
is under way is drained, and the process leaves with an exit code that says so.
"""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass

from vaultlayer_hf.base.events import EventKind
from vaultlayer_hf.errors import RanksError
from vaultlayer_hf.session.save.pacing import Pacer
from vaultlayer_hf.session.session import Session
from vaultlayer_hf.session.stop.notice import MARGIN, LastSave, Notice, RemainingWork, choose_last_save
from vaultlayer_hf.session.stop.watch import NoticeWatch

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


@dataclass(frozen=True)
class StepDecision:
    """What to do at the end of a step, the same on all ranks.

    Attributes:
        save: save a checkpoint now.
        stop: why no further step is to be trained, or None. Save first where ``save`` says so, and not otherwise.
    """

    save: bool = False
    stop: str | None = None


class Stopping:
    """Decides, alike on all ranks, whether and how a training stops. On the training thread.

    Args:
        session: of this rank.
        watch: what announces the end of this process.
        pacer: knows what a save costs.

    Attributes:
        ending: how the training ends, once it was told to stop.
        saved_at: when the last save began, in seconds since the epoch.
    """

    def __init__(self, session: Session, watch: NoticeWatch, pacer: Pacer) -> None:
        self._session, self._watch, self._pacer = session, watch, pacer
        self.ending: Ending | None = None
        self.saved_at = 0.0

    def decide(self, step: int) -> StepDecision | None:
        """Return what any rank asks all of them for at the end of ``step``; None: nothing. All ranks.

        Raises FencedError.
        """
        if self.ending is not None:
            return StepDecision(stop=self.ending.reason)
        return self._act(step, self._session.ranks.request(step, self._request()))

    def decide_in_evaluation(self, step: int, batches: int) -> StepDecision | None:
        """Return what to do at once behind ``step``, in an evaluation; None: nothing. All ranks, at each batch.

        ``batches``: how many of evaluations are done. Ranks gather what they predict, so they are at most one batch
        apart, as with steps. Several ask each other only to stop: one save more they make at the next step.
        """
        if self.ending is not None:
            return StepDecision(stop=self.ending.reason)
        ranks, wanted = self._session.ranks, self._request()
        if ranks.world_size > 1 and wanted is not None and not wanted.startswith("stop "):
            wanted = None
        return self._act(step, ranks.request(batches, wanted, topic="stop in evaluation"))

    def _act(self, step: int, agreed: str | None) -> StepDecision | None:
        session = self._session
        if agreed is None:
            return None
        kind, _, said = agreed.partition(" ")
        if kind == "fenced":
            session.stop_if_fenced(said)
            return StepDecision()
        where, _, encoded = said.partition(" ")
        notice = Notice.decode(encoded)
        seen = f" seen on rank {where}" if session.ranks.world_size > 1 else ""
        text = f"{notice.what};{seen}" if seen else notice.what
        if kind == "save":
            self._watch.done(notice)
            if session.ranks.rank == 0:
                session.events.info(EventKind.PREEMPT, f"a save at step {step}: {text}", step=step)
            return StepDecision(save=True)
        return self._end(step, notice, text, f"{notice.source}{seen}")

    def look_at_the_end(self) -> None:
        """End for a notice that comes behind the last step, while uploads are waited for.

        Not agreed on among the ranks: none trains any more, and each leader waits for what its own node uploads.
        """
        if self.ending is not None or self._session.disabled:
            return
        found = self._watch.pending(time.time(), self._remaining_work().needed or 0.0, time.time())
        if found is not None and found[0] == "stop":
            notice = found[1]
            self.ending = Ending(notice.what, notice.deadline, notice.code)

    def bound(self, timeout: float) -> float:
        """Return how long to wait now for something that may take ``timeout`` seconds otherwise."""
        return self.ending.bound(timeout) if self.ending is not None else timeout

    @property
    def late(self) -> bool:
        """Whether the process is ended so soon that nothing more is waited for."""
        return self.ending is not None and self.ending.bound(math.inf) == 0

    def _remaining_work(self) -> RemainingWork:
        """Return what this rank's node has to do before its process can end."""
        uploader = self._session.uploader
        if uploader is None:
            return RemainingWork()
        # The last save has nothing to be written beside: what is written there otherwise, training waits for then.
        pacer = self._pacer
        stall = None if pacer.stall is None else pacer.stall + pacer.beside
        return RemainingWork(uploader.unsent, self._session.part_bytes, uploader.rate, stall)

    def _request(self) -> str | None:
        """Return what this rank asks all ranks for: ``fenced <why>``, or ``save`` or ``stop`` with a notice."""
        uploader = self._session.uploader
        if uploader is not None and uploader.fenced is not None:
            return f"fenced {uploader.fenced}"
        found = self._watch.pending(time.time(), self._remaining_work().needed or 0.0, self.saved_at)
        if found is None:
            return None
        action, notice = found
        return f"{action} {self._session.ranks.rank}@{platform.node()} {notice.encode()}"

    def _end(self, step: int, notice: Notice, text: str, source: str) -> StepDecision:
        left = notice.deadline - time.time() if notice.deadline is not None else None
        wait = _ROUND if left is None else max(0.5, min(_ROUND, left / 4))
        try:
            found = self._session.ranks.decide(
                self._remaining_work(),
                lambda nodes: choose_last_save(nodes, left),
                tag=f"end/{step}",
                timeout=wait,
            )
        except RanksError as error:
            found = LastSave(False, str(error))
        self.ending = Ending(text, notice.deadline, notice.code)
        what = (
            f"saves at step {step} and stops" if found.save else f"stops at step {step} without another save"
        )
        self._session.events.info(
            EventKind.PREEMPT,
            f"training {what}, then waits for its uploads ({source}: {found.reason})",
            step=step,
            saves=found.save,
        )
        return StepDecision(save=found.save, stop=text)
