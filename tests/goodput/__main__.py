"""Goodput of a training that is killed every 30 seconds for 5 minutes, with `vl run` and without, as a table.

Goodput is the share of the wall clock that went into steps which count, with what the Trainer does between two of
them: a step takes as long as one of the stock training that nobody kills does in the median, where no save lies
behind it. Such a training stays below 100 %, too: it starts once, and its saves keep it waiting. So the last column
has the steps over its.

python -m tests.goodput [--seconds 300] [--every 30] [--at-once 1] [--only TEXT] [--undisturbed SECONDS]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.goodput.spent import Spent
from tests.goodput.under_kills import PACE, SAVE_STEPS, UNDISTURBED, WAYS, train_under_kills, warm_up


def main() -> None:
    """Play each way and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.goodput")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--every", type=float, default=30.0)
    parser.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="Ways to train_under_kills side by side: what disturbs one disturbs the other.",
    )
    parser.add_argument(
        "--only", default="", help="Only the ways whose names hold this text, and the one to compare with."
    )
    parser.add_argument(
        "--undisturbed",
        type=float,
        default=0.0,
        help="Seconds of the training that nobody kills, where they are to be others: its pace is known sooner.",
    )
    asked = parser.parse_args()
    ways = [way for way in WAYS if asked.only in way or way == UNDISTURBED]
    print(
        f"A step takes {PACE} s, a checkpoint is saved every {SAVE_STEPS} steps, and the training is killed (SIGKILL) "
        f"about every {asked.every:.0f} s for {asked.seconds:.0f} s; {asked.at_once} side by side.\n"
    )
    headings = (
        "kept running by",
        "kills",
        "failed starts",
        "step reached",
        "steps trained",
        "lost",
        "goodput",
        "of never killed",
    )
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    warm_up()
    with (
        tempfile.TemporaryDirectory(prefix="vl-goodput-") as scratch,
        ThreadPoolExecutor(asked.at_once) as pool,
    ):
        folders = [Path(scratch, str(number)) for number in range(len(ways))]
        played = pool.map(
            lambda way, folder: train_under_kills(
                way, folder, asked.undisturbed * (way == UNDISTURBED) or asked.seconds, asked.every
            ),
            ways,
            folders,
        )
        undisturbed, spent = next(played), list[tuple[str, float, Spent]]()
        for way, one in zip(ways, itertools.chain([undisturbed], played), strict=True):
            rates = one.reached / one.seconds, undisturbed.reached / undisturbed.seconds
            share = f"{rates[0] / rates[1]:.1%}"
            goodput = f"{one.goodput(undisturbed.pace):.1%}"
            row = (
                way,
                one.kills,
                one.failed,
                one.reached,
                one.trained,
                one.trained - one.reached,
                goodput,
                share,
            )
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            spent.append((way, one.seconds, one.spent(undisturbed.pace)))
    print(f"\nA step of the training that nobody kills takes {undisturbed.pace * 1e3:.1f} ms.")
    _print_spent(spent)


def _print_spent(ways: list[tuple[str, float, Spent]]) -> None:
    """Print what is missing to 100 %, by where it went."""
    headings = (
        "missing to 100 %",
        "first start",
        "restarts",
        "lost steps",
        "at the script's saves",
        "between others",
    )
    print(f"\n| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    for way, seconds, spent in ways:
        parts = (spent.start, spent.restarts, spent.lost, spent.saves, spent.between)
        print(f"| {way} | {' | '.join(f'{part / seconds:.2%}' for part in parts)} |", flush=True)


if __name__ == "__main__":
    main()
