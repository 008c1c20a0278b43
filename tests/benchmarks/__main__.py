"""The one command: ``python -m tests.benchmarks [--quick] [--only a,b,c,d,e,f,g,h,i,j,k] [--rounds N] [--write]``."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import (
    beside,
    clouds,
    growth,
    imports,
    passing,
    restart,
    speed,
    stall,
    table,
    transfer,
    writing,
)
from tests.benchmarks.measure import Row


def main() -> int:
    """Run the parts that are asked for and show the table; 0 also where a goal is missed, see --strict."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What vaultlayer_hf costs."
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one round: shows that it works, no more"
    )
    parser.add_argument(
        "--only",
        default="a,b,c,d,e,g,h",
        help="parts: a transfers, b stall, c training speed, d import, e growth, f passing on (root), g restart, "
        "h saves beside the training, i transfers on Azurite, j on a double of Google Cloud Storage, k with keys",
    )
    parser.add_argument("--rounds", type=int, help="rounds of each part (default 5; with --quick 1)")
    parser.add_argument("--megabytes", type=int, default=2000, help="size of parts a, i, j and k")
    parser.add_argument("--clients", default="", help="only these clients of part a, separated by commas")
    parser.add_argument("--server", choices=("null sink", "SeaweedFS"), help="only this server of part a")
    parser.add_argument(
        "--folder", help="where to work: needs 25 GB, on a local disk (default: the temporary folder)"
    )
    parser.add_argument("--write", action="store_true", help="put the rows into tests/benchmarks/README.md")
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--window", type=float, default=6.0, help="seconds of a window of part c")
    parser.add_argument("--ways", default="", help="only these ways of part c, separated by commas")
    parser.add_argument(
        "--threads", default="1,2", help="threads of training in parts c and h: 1 leaves a core, 2 none"
    )
    parser.add_argument("--sizes", default="", help="millions of parameters of part h, such as 50,200,1000")
    options = parser.parse_args()
    parts = options.only.split(",")
    quick = options.quick
    rounds = options.rounds or (1 if quick else 5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and gigabytes are cleaned up then too
    work = Path(tempfile.mkdtemp(prefix="vl-bench-", dir=options.folder))
    rows: list[Row] = []
    try:
        if "a" in parts:
            clients = set(filter(None, options.clients.split(",")))
            where = {options.server} if options.server else None
            rows += transfer.measure(
                work / "a", 60 if quick else options.megabytes, rounds, say, clients, where
            )
            shutil.rmtree(work / "a")
        if "b" in parts:
            sizes = (10, 3, 1, 1.0) if quick else (100, 6, rounds, 6.0)
            rows += stall.measure(work / "b", *sizes, say)
        if "c" in parts:
            sizes_c = (30, 1, 1.0) if quick else (1000, rounds, options.window)
            ways = (speed.WAYS[1], speed.WAYS[2]) if quick else speed.WAYS
            ways = tuple(filter(None, options.ways.split(","))) or ways
            threads = tuple(map(int, options.threads.split(",")))
            rows += speed.measure(work / "c", *sizes_c, say, ways, threads)
        if "d" in parts:
            rows += imports.measure(rounds if quick else max(rounds, 7), say)
        if "e" in parts:
            rows += growth.measure(work / "e", rounds, quick, say)
        if "f" in parts:
            rows += passing.measure(work / "f", rounds, quick, say)
        if "g" in parts:
            rows += restart.measure(work / "g", rounds, say)
        if "h" in parts:
            sizes = (
                tuple(map(int, options.sizes.split(","))) if options.sizes else (30,) if quick else (50, 200)
            )
            threads_h = tuple(map(int, options.threads.split(",")))
            saves, rounds_h = (2, 1) if quick else (4, options.rounds or 1)
            rows += beside.measure(work / "h", [4 * one for one in sizes], saves, rounds_h, threads_h, say)
            rows += writing.measure(work / "w", 64 if quick else 512, rounds_h, threads_h, say)
        if "i" in parts:
            rows += clouds.measure_azure(work / "i", 60 if quick else options.megabytes, rounds, say)
        if "j" in parts:
            rows += clouds.measure_google(work / "j", 60 if quick else options.megabytes, rounds, say)
        if "k" in parts:
            rows += transfer.measure_keys(work / "k", 60 if quick else options.megabytes, rounds, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table.show(rows)
    words = re.sub(r"--write|--(json|folder)[ =]\S+", "", shlex.join(sys.argv[1:]))
    command = " ".join(["python -m tests.benchmarks", *words.split()])
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if options.write:
        names = {
            "results": "abcd",
            "growth": "e",
            "passing": "f",
            "restart": "g",
            "beside": "h",
            "clouds": "ij",
            "keys": "k",
        }
        for name, sections in names.items():
            if mine := [row for row in rows if row.section in sections]:
                table.write(mine, command, name)
    return 1 if options.strict and any(row.met is False for row in rows) else 0


def say(text: str) -> None:
    """Tell how far it is, on stderr: the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # the servers' environment is what counts, not a user's own S3
    for name in [name for name in os.environ if name.startswith(("AWS_", "VAULTLAYER_"))]:
        del os.environ[name]
    raise SystemExit(main())
