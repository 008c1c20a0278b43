"""What real scripts do around a resume is right with a vault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.cases.every  # noqa: F401  registers the cases
from tests.cases.__main__ import attempt, heading, row
from tests.cases.case import CASES, Case, Verdict
from tests.forks import ForkServer


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Starts the processes of all cases."""
    with ForkServer() as forks:
        yield forks


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in CASES.values() if one.quick and not one.open])
def test_a_case_is_right(name: str, server: ForkServer) -> None:
    """What the case calls right is what happens."""
    verdict = attempt(CASES[name], "ours", server)
    if verdict.right is None:
        pytest.skip(verdict.figures)
    assert verdict.right, f"{heading(CASES[name])}\n{verdict.figures}"


def test_an_open_case_is_no_pass() -> None:
    """A case that is known to fail stands in the table as open, with the reason, and not as a pass."""
    known = Case("name", "what", "right", lambda bench: Verdict(False, "3 of 4"), open="for a reason")
    assert row(known, "ours", Verdict(False, "3 of 4")).split(maxsplit=2)[1:] == [
        "OPEN",
        "3 of 4; for a reason",
    ]
    assert "FAIL" in row(known, "stock", Verdict(False, "3 of 4"))
    assert "PASS" in row(known, "ours", Verdict(True, "4 of 4"))
