"""All programs, undisturbed and killed under `vl run`, as a table: ``python -m tests.others [--limit S] [WORD ...]``.

WORD: only programs with it in their names. ``--limit``: seconds that one run may take, for a busy machine. What
isn't installed is skipped, and how to get it is said. axolotl, LLaMA-Factory, ms-swift and Unsloth each want other
versions of transformers and trl than the rest: try them with the Python of an environment of their own
(``PYTHONPATH=. ENVIRONMENT/bin/python -m tests.others axolotl``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.others.compare import LIMIT, run_killed, run_plain
from tests.others.programs import PROGRAMS, Program, is_there

_ROW = "{:46}{:8}{:24}{:24}{}"


def main() -> None:
    """Play all; exit 1 where one doesn't end with the same weights."""
    parser = argparse.ArgumentParser(description="programs of others, undisturbed and killed under vl run")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="S")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    words = options.words
    print(_ROW.format("program", "plain", "killed under vl run", "disk emptied", "weights"), flush=True)
    failed = False
    for program in PROGRAMS:
        if words and not any(word.lower() in program.name.lower() for word in words):
            continue
        if not is_there(program):
            print(f"{program.name:46}skipped: {program.install}", flush=True)
            continue
        for ranks in program.ranks:
            failed |= not _play(program, ranks, options.limit)
    sys.exit(failed)


def _play(program: Program, ranks: int, limit: float) -> bool:
    name = program.name + (f", {ranks} ranks" if ranks > 1 else "") + (" (vl init)" if program.insert else "")
    told: list[str] = []
    trouble: list[str] = []
    equal = True
    with tempfile.TemporaryDirectory(prefix="vl-others-") as text:
        folder = Path(text)
        began = time.monotonic()
        try:
            calm = run_plain(program, ranks, folder, limit=limit)
            told.append(f"{time.monotonic() - began:.0f} s")
            for empty in (False, True):
                began = time.monotonic()
                compared = run_killed(program, ranks, folder, calm, empty=empty, limit=limit)
                ended = f"ended, {time.monotonic() - began:.0f} s"
                told.append(ended if compared.code == 0 else f"exit code {compared.code}")
                equal &= compared.same
                if not compared.good:
                    trouble.append(compared.output)
        except AssertionError as error:
            trouble.append(str(error))
        except subprocess.TimeoutExpired as error:
            output = error.stdout or b""
            trouble.append(f"no end within {limit:.0f} s:\n{output.decode(errors='replace')}")
    told += ["failed"] * (3 - len(told))
    print(_ROW.format(name, *told, "equal" if equal and not trouble else "NOT EQUAL"), flush=True)
    for output in trouble:
        print(output, flush=True)
    return not trouble


if __name__ == "__main__":
    main()
