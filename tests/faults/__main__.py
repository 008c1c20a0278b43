"""The scoreboard of faults, one command: ``python -m tests.faults [--only proxy/] [--rounds 3] [--json FILE]``.

Each fault happens to a real training: once it is over before the training is, once the training is killed while it
lasts, and once it is there while a start restores. Ends with 1 where a commit was lost, a start went on from anything
else than the newest whole checkpoint, or a training stopped. The column ``slowed`` means something on a quiet machine
only: give it ``--rounds 5`` there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.board import WAYS, Board, Row, table
from tests.faults.kinds import NEEDS_ROOT, every_fault
from tests.forks import ForkServer
from tests.servers import SeaweedServer


def main() -> int:
    """Try the faults that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--only", action="append", help="faults whose names begin so, such as proxy/ or disk/full"
    )
    parser.add_argument("--way", action="append", choices=WAYS, help="default: all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    options = parser.parse_args()
    names = [name for name in every_fault() if not options.only or name.startswith(tuple(options.only))]
    rows = []
    with ForkServer() as forks, tempfile.TemporaryDirectory(prefix="vl-faults-") as scratch:
        server = SeaweedServer()
        server.start()
        os.environ.update(server.env())  # the verdicts are read from here
        try:
            board = Board(forks, server, Path(scratch))
            for name in names:
                if os.geteuid() != 0 and name.startswith(NEEDS_ROOT):
                    print(f"{name}: needs root, left out", file=sys.stderr)
                    continue
                rows.append(row := Row(name))
                for _ in range(options.rounds):
                    board.measure(name)
                    for way in options.way or WAYS:
                        board.attempt(row, way)
                print(f"{name}: {'good' if row.good else 'NOT GOOD'}", file=sys.stderr, flush=True)
        finally:
            server.close()
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
