"""Goodput of a training that is killed every 30 seconds for 5 minutes, with `vl run` and without, as a table.

python -m tests.goodput [--seconds 300] [--every 30]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.goodput.play import PACE, SAVE_STEPS, WAYS, play


def main() -> None:
    """Play each way and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.goodput")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--every", type=float, default=30.0)
    asked = parser.parse_args()
    print(
        f"A step takes {PACE} s, a checkpoint is saved every {SAVE_STEPS} steps, and the training is killed (SIGKILL) "
        f"every {asked.every:.0f} s for {asked.seconds:.0f} s.\n"
    )
    print(
        "| kept running by | kills | step reached | steps trained | lost | goodput |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="vl-goodput-") as scratch:
        for number, way in enumerate(WAYS):
            one = play(way, Path(scratch, str(number)), asked.seconds, asked.every)
            lost = one.trained - one.reached
            print(
                f"| {way} | {one.kills} | {one.reached} | {one.trained} | {lost} | {one.goodput:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
