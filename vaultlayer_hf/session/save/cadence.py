"""How often to save: what was measured on one side, an interval with its reason on the other. Pure.

A run that dies loses what it has trained since the last commit; a save stalls training. Both together are least
at the interval of Young and Daly:

- J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of the ACM 17(9),
  1974, pp. 530-531: ``sqrt(2 * stall * mtbf)``.
- J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
  Computer Systems 22(3), 2006, pp. 303-312, equation 37: the same with two more terms, for stalls that aren't
  small against the mean time between failures.

Here only the stall counts as cost: uploads run beside training. How long an upload takes adds to each loss, but
the same at any interval, so it moves the optimum's value and not its place; it is a lower bound of the interval.

A script may save by itself, too. Those saves come whatever ``auto`` does, so they don't count as what it spends; but
each ends an interval as well, so the saves of ``auto`` are put evenly between them, as many as pay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vaultlayer_hf.base.text import duration_text

IO_SHARE = 0.01
"""Share of the time that ``auto`` may spend in saves of its own, as long as no attempt has died; see ``io_share``."""
FIRST = 60.0
"""Seconds to the first save of ``auto`` that measures, where no attempt before has."""
_LEAST = 0.25
"""Seconds between two saves, at least, however little one costs training: each is several files and requests."""
_PRIOR_FAILURES = 0.5
"""How many failures count as seen before any is: few, so that what is seen soon outweighs them."""
_BELIEFS = ((12 * 3600.0, 0.9), (3600.0, 0.075), (300.0, 0.02), (30.0, 0.005))
"""Seconds in which these count as seen, and how probable that is beforehand: a failure in 24 hours, 2, 10 minutes, 1.
Machines differ that much, and half a failure in 12 hours alone would take hours to believe in one every minute."""


@dataclass(frozen=True)
class SaveCosts:
    """What ``auto`` decides from.

    Attributes:
        stall: seconds that a save keeps training waiting; None before the first.
        upload: seconds from a save to its commit; 0 before the first.
        failures: attempts at this run that died, as the vault's log shows them.
        alive: seconds that this run has been alive, over all attempts.
        stalled: seconds that saves of ``auto`` have taken in this attempt.
        running: seconds from its begin to the end of its last save.
        own: seconds from one of the script's own saves to the next; 0: it has none, or they aren't known yet.
    """

    stall: float | None = None
    upload: float = 0.0
    failures: int = 0
    alive: float = 0.0
    stalled: float = 0.0
    running: float = 0.0
    own: float = 0.0


@dataclass(frozen=True)
class Interval:
    """An interval and why.

    Attributes:
        seconds: from one save to the next.
        reason: in words.
    """

    seconds: float
    reason: str


def choose_interval(measured: SaveCosts, max_loss: float | None = None) -> Interval:
    """Choose an interval: Daly's optimum, within the bounds.

    ``max_loss``: seconds of training that a failure may cost at most, wherever uploads are quick enough for it; it
    wins over the bound on the time that saves take.
    """
    stall = measured.stall
    if stall is None:
        first = min(FIRST, max_loss or FIRST)
        return Interval(first, f"the first save, after {duration_text(first)}, measures what one costs")
    mean = mean_time_between_failures(measured.failures, measured.alive)
    optimum = daly(stall, mean)
    seen = f"{measured.failures} in {duration_text(measured.alive)} so far"
    why = f"the optimum (Daly) for a stall of {duration_text(stall)} and a failure in {duration_text(mean)} ({seen})"
    fitting = between(max(optimum, _LEAST), measured.own)
    if measured.own:
        apart = f"the script's own saves, {duration_text(measured.own)} apart"
        why += f"; evenly between {apart}" if fitting < measured.own else f"; {apart}, come first"
    seconds = max(fitting, _LEAST)
    # Of the whole attempt: what was spent too early, or on a save that took longer, is made up for.
    share = io_share(measured.failures)
    least = max(0.0, (measured.stalled + stall) / share - measured.running - stall)
    if least > seconds:
        seconds, why = least, f"saves of {duration_text(stall)} may take {share:.0%} of the time"
    if max_loss is not None and seconds + stall + measured.upload > max_loss:
        seconds = max(_LEAST, max_loss - stall - measured.upload)
        why = f"at most {duration_text(max_loss)} may be lost, and an upload takes {duration_text(measured.upload)}"
        if least > seconds:
            why += f"; saves take {stall / (seconds + stall):.1%} of the time for it"
    if measured.upload > seconds:
        seconds, why = measured.upload, f"an upload takes {duration_text(measured.upload)}"
        if max_loss is not None:
            why += f", which is too long for a loss of {duration_text(max_loss)}"
    return Interval(seconds, why)


def io_share(failures: int) -> float:
    """Return the share of the time that ``auto`` may spend in saves of its own.

    One percent, so that a run which never dies hardly pays for a belief about failures that nothing has confirmed yet.
    Each failure that was seen makes Daly's optimum surer, and raises the share by another percent; beyond a few of them
    the optimum alone decides.

    >>> [io_share(failures) for failures in (0, 1, 4)]
    [0.01, 0.02, 0.05]
    """
    return IO_SHARE * (1 + failures)


def daly(stall: float, mean: float) -> float:
    """Return the optimal seconds of training between saves (Daly 2006, equation 37; sources above).

    ``stall``: seconds that a save takes. ``mean``: seconds between failures.
    """
    if stall >= 2 * mean:
        return mean
    part = stall / (2 * mean)
    return math.sqrt(2 * stall * mean) * (1 + math.sqrt(part) / 3 + part / 9) - stall


def between(optimum: float, own: float) -> float:
    """Return the seconds from a save to one of ``auto`` that fit best between the script's own saves.

    ``own`` seconds from one of these to the next, cut into ``n`` equal parts, cost ``n`` stalls and half a part at each
    failure. One part more pays as long as ``n * (n + 1)`` is below the square of ``own / optimum``, by Young's optimum.

    >>> [between(10.0, own) for own in (5.0, 14.0, 16.0, 30.0)]
    [10.0, 15.0, 8.0, 10.0]
    """
    if own < optimum:
        return optimum  # the next of the script's own comes first
    parts = math.floor((1 + math.sqrt(1 + 4 * (own / optimum) ** 2)) / 2)
    return own / parts if parts > 1 else 1.5 * optimum  # more than ``own``, which comes first again


def mean_time_between_failures(failures: int, alive: float) -> float:
    """Return seconds between failures: the mean of a gamma prior for their rate, updated by what was seen.

    Of several priors the one counts under which ``failures`` in ``alive`` seconds are the most probable (the marginal
    likelihood of a Poisson process under a gamma prior, without the factors that all of them share; Gelman et al.,
    Bayesian Data Analysis, 3rd edition, section 2.6).
    """

    def evidence(belief: tuple[float, float]) -> float:
        seconds, probable = belief
        seen = (failures + _PRIOR_FAILURES) * math.log(seconds + alive)
        return math.log(probable) + _PRIOR_FAILURES * math.log(seconds) - seen

    seconds, _ = max(_BELIEFS, key=evidence)
    return (alive + seconds) / (failures + _PRIOR_FAILURES)
