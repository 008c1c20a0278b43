"""The whole kill campaign, one command: ``python -m tests.campaign [--store folder|s3] [--limit N]``.

Parts: ``save`` kills a run at every point of its start, of the save in its middle, and of its end; ``disk``
does so at every fifth point and empties the disk; ``overtaken`` kills the uploader when training has already
queued the next checkpoint; ``moved`` has a process move every file, as it does with large ones, and kills the run or
that process at every point of a save; ``resume`` kills the second start at every point, from a commit and from a sealed
snapshot. It prints how many points were tried, and ends with 1 where a start was not right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.campaign.harness import Campaign
from tests.campaign.parts import PARTS, campaign_on, shared_memory


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="default: all")
    parser.add_argument("--limit", type=int, help="at most so many kills of each part, evenly spread")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="vl-campaign-", dir=shared_memory()) as scratch,
        campaign_on(options.store, Path(scratch)) as campaign,
    ):
        for name in options.part or PARTS:
            part(campaign, name, options.limit, options.jobs)
        print(
            f"{options.store}: {campaign.tried} points tried, {len(campaign.failures)} failures, "
            f"{time.monotonic() - begin:.0f} s"
        )
        for failure in campaign.failures:
            print(f"\nFAILED {failure}")
    return 1 if campaign.failures else 0


def part(campaign: Campaign, name: str, limit: int | None, jobs: int) -> None:
    """Carry out one part and print its line."""
    begin, before = time.monotonic(), campaign.tried
    PARTS[name](campaign, limit, jobs)
    print(
        f"  {name}: {campaign.tried - before} points tried, {time.monotonic() - begin:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
