"""Print the table of cases: what is right, what stock transformers does, and what a vault makes of it.

    python -m tests.cases [NAME ...] [--side ours|stock] [--quick] [--list]

Each side is tried in processes of their own, with a limit of time. Stock goes on from the folder that
get_last_checkpoint finds on the same disk; ours mostly from its vault, on another disk. The exit code is 1 where ours
fails a case that isn't listed as open.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import textwrap
from pathlib import Path

import tests.cases.every  # noqa: F401  registers the cases
from tests.cases.case import CASES, Bench, Case, Side, Verdict
from tests.forks import ForkServer
from tests.kit.signals import as_at_a_terminal


def main() -> int:
    """Parse the command line, try the cases, and print a row of each as it comes."""
    as_at_a_terminal()  # some interrupt a training
    parser = argparse.ArgumentParser(
        prog="python -m tests.cases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="cases; all by default")
    parser.add_argument("--side", choices=("ours", "stock"), help="one side alone")
    parser.add_argument("--quick", action="store_true", help="those that take a few seconds")
    parser.add_argument("--list", action="store_true", help="print the cases without trying them")
    options = parser.parse_args()
    unknown = set(options.names) - set(CASES)
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    chosen = [CASES[name] for name in options.names or CASES]
    chosen = [one for one in chosen if one.quick or not options.quick]
    sides: tuple[Side, ...] = (options.side,) if options.side else ("stock", "ours")
    failed = False
    with ForkServer() as forks:
        for one in chosen:
            print(heading(one), flush=True)
            for side in () if options.list else sides:
                verdict = attempt(one, side, forks)
                print(row(one, side, verdict), flush=True)
                failed |= side == "ours" and verdict.right is False and not one.open
    return int(failed)


def attempt(case: Case, side: Side, forks: ForkServer) -> Verdict:
    """Try a case on one side, in a folder of its own. Never raises but for an interruption."""
    lacking = [name for name in case.needs if importlib.util.find_spec(name) is None]
    if lacking:
        return Verdict(None, f"not tried: {', '.join(lacking)} isn't installed")
    try:
        with tempfile.TemporaryDirectory(prefix="case-", ignore_cleanup_errors=True) as folder:
            return case.run(Bench(side, Path(folder), forks))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A process that hangs, or something that this machine hasn't, as pytest.skip says.
        skipped = type(error).__name__ == "Skipped"
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Verdict(None if skipped else False, f"not tried: {text}" if skipped else text[:200])


def heading(case: Case) -> str:
    """Return the lines that say what a case is."""
    text = textwrap.fill(
        f"{case.what}. Right: {case.right}.", 110, initial_indent="  ", subsequent_indent="  "
    )
    return f"{case.name}\n{text}"


def row(case: Case, side: Side, verdict: Verdict) -> str:
    """Return the line that says what became of it on one side."""
    word = {True: "PASS", False: "FAIL", None: "-"}[verdict.right]
    if word == "FAIL" and side == "ours" and case.open:
        word, verdict = "OPEN", Verdict(False, f"{verdict.figures}; {case.open}")
    return f"  {side:6} {word:5} {verdict.figures}"


if __name__ == "__main__":
    sys.exit(main())
