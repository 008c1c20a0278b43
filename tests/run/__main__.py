"""Every kind of death under `vl run`, on one rank and on two, as a table.

python -m tests.run [--ranks 1 2] [--only PART-OF-A-NAME]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.run.deaths import CLOSE, KINDS, NONE, check, play, why_impossible
from tests.run.programs import Ran, plain, torchrun


def main() -> int:
    """Play them all; return 1 where one didn't go as it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.run")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    failed = 0
    print("| death | ranks | decided | final weights | seconds |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="vl-run-") as scratch:
        references: dict[tuple[int, str], Ran] = {}
        for name, kind in KINDS.items():
            if asked.only not in name or why_impossible(kind):
                continue
            for ranks in asked.ranks:
                dropout = "0" if kind.end == CLOSE else "0.2"
                if kind.end != NONE and (ranks, dropout) not in references:
                    command = (*torchrun(ranks), "train.py") if ranks > 1 else ()
                    references[ranks, dropout] = plain(
                        Path(scratch, f"reference-{ranks}-{dropout}"), *command, DROPOUT=dropout
                    )
                begin = time.monotonic()
                ran = play(kind, ranks, Path(scratch, f"{name}-{ranks}".replace(" ", "-")))
                verdict = {NONE: "none", CLOSE: "losses as without it, but for rounding"}.get(
                    kind.end, "bit-identical"
                )
                try:
                    check(kind, ran, references.get((ranks, dropout)))
                except AssertionError as error:
                    failed += 1
                    verdict = f"NOT AS PROMISED: {error}"
                pairs = zip(ran.lines("death"), ran.lines("decision"), strict=False)
                told = "<br>".join(
                    f"{one['cause']}: {one['detail']} -> {two['action']}, {two['reason']}"
                    for one, two in pairs
                )
                print(
                    f"| {name} | {ranks} | {told} | {verdict} | {time.monotonic() - begin:.0f} |", flush=True
                )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
