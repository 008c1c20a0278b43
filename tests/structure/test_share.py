"""The options by which CI takes a share of the slow tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHOSEN = ("tests/base/test_elsewhere.py", "tests/base/test_events.py", "tests/base/test_text.py")


def collected(*options: str) -> list[str]:
    """The tests of some files in the order in which they would run."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *options, *CHOSEN], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_another_text_gives_another_order_of_the_same_tests() -> None:
    """All files are there in each order, and those of a file stay together and in their own order."""
    plain, found = collected(), collected("--order", "b")
    assert found != plain
    assert sorted(found) == sorted(plain)
    for path in CHOSEN:
        assert [one for one in found if one.startswith(path)] == [
            one for one in plain if one.startswith(path)
        ]


def test_what_would_begin_too_late_is_skipped_and_counted() -> None:
    """With no minute left nothing runs, and the summary says so."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--minutes", "0", CHOSEN[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "not begun within --minutes 0" in done.stdout
    assert "passed" not in done.stdout
