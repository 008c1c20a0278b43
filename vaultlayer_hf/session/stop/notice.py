"""A notice that this process will be ended, and what to do about it when. Pure: times in, a choice out.

Times are seconds since the epoch: those of the clouds' notices are, and hosts agree on them well enough.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from vaultlayer_hf.base.text import duration_text, size_text
from vaultlayer_hf.session.stop.exits import PREEMPTED

LEAD = 120.0
"""Seconds before a deadline from which on no further step is trained, or more where the end takes longer."""
MARGIN = 2.0
"""Seconds before a deadline at which uploads are given up, so that the process can still end by itself."""
_SAFETY = 1.2
"""Factor by which what is left to do may take longer than measured."""
Action = Literal["save", "stop"]


@dataclass(frozen=True)
class Notice:
    """Something said that this process will, or may, be ended.

    Attributes:
        source: who said it, such as ``SIGTERM`` or ``AWS``.
        what: in words.
        deadline: when the process is ended; None: not said.
        stops: it will be ended; False: it may be, or will only pause, so a save is enough.
        code: the exit code to end with.
        seen: when it was seen first.
    """

    source: str
    what: str
    deadline: float | None = None
    stops: bool = True
    code: int = PREEMPTED
    seen: float = 0.0

    def action(self, now: float, needed: float = 0.0, saved: float = 0.0) -> Action | None:
        """Return what to do at ``now``; None: nothing yet, or nothing more.

        ``needed``: seconds that a save and its upload take. ``saved``: when training was saved last.
        """
        if self.stops and (self.deadline is None or self.deadline - now <= max(LEAD, 2 * needed)):
            return "stop"
        return "save" if saved <= self.seen else None

    def encode(self) -> str:
        """Return it as a word for other ranks."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, word: str) -> Notice:
        """Return the notice that ``encode`` made a word of."""
        return cls(**json.loads(word))


@dataclass(frozen=True)
class RemainingWork:
    """What a node has to do before its process can end.

    Attributes:
        waiting: bytes under way or queued that aren't sent yet.
        size: bytes of the node's part of one more checkpoint; None: not known.
        rate: bytes per second that uploads were measured to reach; None: not known.
        stall: seconds that a save takes ahead of its upload; None: not known.
    """

    waiting: int = 0
    size: int | None = None
    rate: float | None = None
    stall: float | None = None

    @property
    def needed(self) -> float | None:
        """Seconds to save once more and to send all, with some to spare; None where too little is known."""
        if self.size is None or not self.rate:
            return None
        return _SAFETY * ((self.stall or 0.0) + (self.waiting + self.size) / self.rate)


@dataclass(frozen=True)
class LastSave:
    """Whether one more save is made before the end.

    Attributes:
        save: whether it is.
        reason: in words.
    """

    save: bool
    reason: str


def choose_last_save(nodes: Sequence[RemainingWork], left: float | None) -> LastSave:
    """Decide for all nodes whether one more checkpoint can still be uploaded within ``left`` seconds.

    Where nothing was measured yet it is tried: what isn't uploaded in time stays on the disk.
    """
    if left is None:
        return LastSave(True, "there is no deadline")
    known = [(work.needed, work) for work in nodes if work.needed is not None]
    if left <= MARGIN:
        return LastSave(False, f"{max(0.0, left):.0f} s are left")
    if not known:
        return LastSave(True, f"{left:.0f} s are left, and no upload was measured yet")
    needed, work = max(known, key=lambda pair: pair[0])
    takes = (
        f"{size_text(work.waiting + (work.size or 0))} take {duration_text(needed)} and {left:.0f} s are left"
    )
    return LastSave(needed <= left - MARGIN, takes)
