"""python -m tests.exact [--ranks N] [--more] [--only TEXT]: the table of scenarios, stock against ours.

Each is broken off three times and gone on with three times; ours on an empty disk each time.

Exit code 1 where a scenario that can be the same run isn't.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.exact.material import MORE, TABLE
from tests.exact.table import play_all, text_of


def main() -> int:
    """Play and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="scenarios beyond the fifteen")
    parser.add_argument("--only", default="", help="those whose name contains this")
    choice = parser.parse_args()
    scenarios = [one for one in (MORE if choice.more else TABLE) if choice.only in one.name]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vl-exact-") as folder:
        rows = play_all(scenarios, Path(folder), choice.ranks)
    print(f"{text_of(rows)}\n{choice.ranks} rank(s), 3 breaks, {time.monotonic() - begin:.0f} s")
    return int(any(row.scenario.possible and not (row.ours and row.unchanged) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
