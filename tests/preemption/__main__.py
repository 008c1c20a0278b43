"""Each way to tell a run to stop, in time and too late, on one rank and on two: ``python -m tests.preemption``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.forks import ForkServer
from tests.preemption.test_runs import WAYS, check_long_enough, check_too_short


def main() -> None:
    """Print the table; end with 1 where a row isn't as promised."""
    bad = 0
    with ForkServer("tests.preemption.preempted_training") as forks:
        for check, what in ((check_long_enough, "long enough"), (check_too_short, "too short")):
            for way in WAYS:
                for world in (1, 2):
                    begin = time.monotonic()
                    with tempfile.TemporaryDirectory() as folder:
                        try:
                            check(forks, Path(folder), way, world)
                            result = "as promised"
                        except AssertionError as error:
                            result, bad = f"NOT AS PROMISED: {str(error).splitlines()[0][:200]}", bad + 1
                    took = time.monotonic() - begin
                    print(
                        f"{way:>8}  {what:>11}  {world} rank{'s'[: world - 1]:1}  {took:4.1f} s  {result}",
                        flush=True,
                    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
