"""The kept file of messages is what is printed."""

from __future__ import annotations

import difflib

import pytest

from tests.messages import commands, deaths, keys, runs, wrong  # noqa: F401  they register their situations
from tests.messages.__main__ import KEPT
from tests.messages.before import BEFORE
from tests.messages.situations import SITUATIONS, page


@pytest.mark.slow
def test_the_kept_messages_are_those_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed message is read once more, in the file in which all of them stand side by side."""
    monkeypatch.delenv("VAULTLAYER_VAULT", raising=False)
    kept, now = KEPT.read_text(encoding="utf-8").splitlines(), page().splitlines()
    changed = "\n".join(difflib.unified_diff(kept, now, "messages.md", "now", lineterm="", n=1))
    assert not changed, f"read these, then `python -m tests.messages --write`:\n{changed}"


def test_what_was_said_before_stands_beside_a_situation() -> None:
    """Each text of the first release has the situation of today in which it was said."""
    chapters = {(chapter, name) for chapter, named in SITUATIONS.items() for name in named}
    names = {("", name) for _, name in chapters}
    assert not set(BEFORE) - chapters - names
