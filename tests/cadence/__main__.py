"""Compares ``auto`` with fixed cadences: ``python -m tests.cadence``; writes a table, fails where it isn't good enough.

For each world the goodput of ``auto`` stands beside that of the best fixed cadence chosen in hindsight: the best of
all, and the best of those that keep saves under 1 % of the training, as ``auto`` has to before anything has died.
Where the script saves by itself, too, these are the saves beside its own.
"""

from __future__ import annotations

import argparse
import sys

from tests.cadence.simulation import Result, World, auto, fixed, grid, simulate
from vaultlayer_hf.base.text import duration_text
from vaultlayer_hf.session.save.cadence import IO_SHARE

HOUR = 3600.0
RATES = (HOUR, 3 * HOUR, 12 * HOUR, 48 * HOUR, 240 * HOUR)
COSTS = ((0.05, 2.0), (0.5, 15.0), (3.0, 60.0), (10.0, 150.0))
"""Seconds of stall and of upload: from a small model to one of hundreds of gigabytes."""
WORLDS = (
    [
        World(mtbf, stall, upload, shape=shape, work=max(2 * 86400.0, 3 * mtbf))
        for mtbf in RATES
        for stall, upload in COSTS
        for shape in (1.0, 0.6)
    ]
    + [
        World(mtbf, 0.02, 0.5, restart=2.0, work=3 * HOUR, own=own)
        for own in (0.0, 4.0)
        for mtbf in (60.0, 300.0)
    ]
    + [World(30.0, 0.005, 0.1, restart=0.3, work=HOUR, own=2.0)]
)
ALLOWED = 0.02
"""How much less goodput than the best fixed cadence ``auto`` may have."""
_ROUNDED = 1 + 1e-9


def mean(results: list[Result]) -> Result:
    """Return the average of runs of one policy."""
    count = len(results)
    return Result(
        sum(item.goodput for item in results) / count,
        sum(item.stalled for item in results) / count,
        sum(item.saves for item in results) // count,
    )


def compare(world: World, seeds: range) -> tuple[Result, tuple[float, Result], tuple[float, Result]]:
    """Return auto's result, the best bounded fixed cadence, and the best of all."""
    found = mean([simulate(world, auto(), seed) for seed in seeds])
    every = [
        (seconds, mean([simulate(world, fixed(seconds), seed) for seed in seeds])) for seconds in grid(world)
    ]
    bounded = [pair for pair in every if _share(world, *pair) <= IO_SHARE * _ROUNDED]
    return found, max(bounded, key=_goodput), max(every, key=_goodput)


def _share(world: World, seconds: float, found: Result) -> float:
    """Return the share of the time that a fixed cadence spends in saves; between the script's own as it came to be."""
    return found.stalled if world.own else world.stall / (seconds + world.stall)


def _goodput(pair: tuple[float, Result]) -> float:
    return pair[1].goodput


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.cadence")
    parser.add_argument("--seeds", type=int, default=10, help="runs a world (default 10)")
    seeds = range(parser.parse_args().seeds)
    print(f"{'failure every':>14} {'shape':>5} {'stall':>7} {'upload':>7} {'auto':>7} {'in saves':>8} "
          f"{'best fixed':>11} {'at':>8} {'behind':>7} {'under 1 %':>10}")  # fmt: skip
    bad = 0
    for world in WORLDS:
        found, best, free = compare(world, seeds)
        behind = free[1].goodput - found.goodput
        bad += behind > ALLOWED
        print(f"{duration_text(world.mtbf):>14} {world.shape:5} {duration_text(world.stall):>7} "
              f"{duration_text(world.upload):>7} {found.goodput:7.2%} {found.stalled:8.2%} {free[1].goodput:11.2%} "
              f"{duration_text(free[0]):>8} {behind:7.2%} {best[1].goodput:10.2%}", flush=True)  # fmt: skip
    print(
        f"{len(WORLDS) - bad} of {len(WORLDS)} worlds: goodput is within {ALLOWED:.0%} of the best fixed cadence's"
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
