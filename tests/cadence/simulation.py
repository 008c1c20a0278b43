"""Simulates runs that fail at random, to compare cadences: the same failures for each, event by event.

The model: training works, and a save stops it for ``stall`` seconds (each time another length, around the mean). Then
its upload takes ``upload`` seconds beside training, one after the other, where a newer save replaces one that waits.
A failure throws training back to the last commit, and a restart takes ``restart`` seconds. Goodput is the share of
the wall time that a run without saves and failures would have needed. The script may save by itself, too, whatever the
policy.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vaultlayer_hf.session.save.cadence import IO_SHARE, SaveCosts, choose_interval, daly

Policy = Callable[[SaveCosts], float]
"""Gives the seconds to the next save, from what was measured."""


@dataclass(frozen=True)
class World:
    """What a run meets.

    Attributes:
        mtbf: mean seconds between failures.
        stall, upload, restart: seconds, as above.
        work: seconds that the run would take undisturbed.
        shape: of the Weibull distribution of failures; 1 is exponential, below 1 they come in bursts.
        own: seconds of training from one of the script's own saves to the next; 0: it has none.
    """

    mtbf: float
    stall: float
    upload: float
    restart: float = 120.0
    work: float = 2 * 86400.0
    shape: float = 1.0
    own: float = 0.0

    def failures(self, chance: random.Random) -> list[float]:
        """Return times between failures, more than are needed."""
        scale = self.mtbf / math.gamma(1 + 1 / self.shape)
        return [chance.weibullvariate(scale, self.shape) for _ in range(int(20 + 6 * self.work / self.mtbf))]


@dataclass(frozen=True)
class Result:
    """What a policy came to.

    Attributes:
        goodput: between 0 and 1.
        stalled: share of the wall time in saves of the policy.
        saves: how many of these.
    """

    goodput: float
    stalled: float
    saves: int


class Uploads:
    """The uploads of one attempt: one at a time, a newer save replaces one that waits.

    Attributes:
        durable: work that is committed.
        last: when the last commit was.
        commits: how many.
    """

    def __init__(self, seconds: float, durable: float) -> None:
        self._seconds = seconds
        self._sending: tuple[float, float] | None = None  # when it is committed, what it holds
        self._waiting: float | None = None
        self.durable, self.last, self.commits = durable, 0.0, 0

    def add(self, now: float, done: float) -> None:
        """Upload what was saved at ``now``."""
        self.carry(now)
        if self._sending is None:
            self._sending = (now + self._seconds, done)
        else:
            self._waiting = done

    def carry(self, now: float) -> None:
        """Let the uploads come as far as they get by ``now``."""
        while self._sending is not None and self._sending[0] <= now:
            self.last, self.durable = self._sending
            self.commits += 1
            waiting, self._waiting = self._waiting, None
            self._sending = (self.last + self._seconds, waiting) if waiting is not None else None


def simulate(world: World, policy: Policy, seed: int) -> Result:
    """Run one policy in a world; the failures depend on the seed alone."""
    noise = random.Random(seed + 1)
    wall = durable = stalled = alive = 0.0
    saves = deaths = 0
    known: float | None = None  # what a save costs, as the log has it
    for until in world.failures(random.Random(seed)):
        attempt, done = 0.0, durable
        stalls: deque[float] = deque(maxlen=5)
        spent, own_at, own_saves = 0.0, world.own and (durable // world.own + 1) * world.own, 0
        uploads = Uploads(world.upload, durable)
        while True:
            stall = sum(stalls) / len(stalls) if stalls else known
            upload = world.upload if uploads.commits or known is not None else 0.0
            known_own = world.own + world.stall if own_saves > 1 else 0.0
            interval = policy(SaveCosts(stall, upload, deaths, alive + attempt, spent, attempt, known_own))
            is_own = bool(own_at) and done + interval >= own_at
            if is_own:
                interval, own_at, own_saves = own_at - done, own_at + world.own, own_saves + 1
            if done + interval >= world.work:
                end = attempt + (world.work - done) + world.upload
                if end > until:
                    break
                wall += end
                return Result(world.work / wall, stalled / wall, saves)
            took = world.stall * noise.lognormvariate(-0.03, 0.25)
            attempt += interval + took
            if attempt > until:
                break
            done += interval
            if not is_own:
                stalled += took
                spent += took
                saves += 1
            stalls.append(took)
            uploads.add(attempt, done)
        uploads.carry(until)
        durable = uploads.durable
        wall += until + world.restart
        if uploads.commits:
            known, deaths, alive = sum(stalls) / len(stalls), deaths + 1, alive + uploads.last
    return Result(0.0, 0.0, saves)  # it never got to its end


def auto(max_loss: float | None = None) -> Policy:
    """The policy under test: what ``save_every="auto"`` does."""
    return lambda measured: choose_interval(measured, max_loss).seconds


def fixed(seconds: float) -> Policy:
    """Save every ``seconds``."""
    return lambda measured: seconds


def grid(world: World) -> list[float]:
    """Return fixed cadences to choose the best of, in hindsight: 12 % apart, around all that could be the best."""
    around = (daly(world.stall, world.mtbf), world.upload, world.stall / IO_SHARE)
    least, most = max(1.0, around[0] / 4), 4 * max(around)
    steps = [least * 1.12**n for n in range(math.ceil(math.log(most / least, 1.12)) + 1)]
    return sorted([*steps, world.stall * (1 / IO_SHARE - 1)])
