"""The kept file of messages is what is printed."""

from __future__ import annotations

import difflib

import pytest

from tests.messages import commands, deaths, runs, wrong  # noqa: F401  they register their situations
from tests.messages.__main__ import KEPT
from tests.messages.situations import page


@pytest.mark.slow
def test_the_kept_messages_are_those_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed message is read once more, in the file in which all of them stand side by side."""
    monkeypatch.delenv("VAULTLAYER_VAULT", raising=False)
    kept, now = KEPT.read_text(encoding="utf-8").splitlines(), page().splitlines()
    changed = "\n".join(difflib.unified_diff(kept, now, "messages.md", "now", lineterm="", n=1))
    assert not changed, f"read these, then `python -m tests.messages --write`:\n{changed}"
