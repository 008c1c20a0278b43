"""The kinds of events: what the package emits and what it says it emits, read from its source."""

from __future__ import annotations

import ast
from pathlib import Path

import vaultlayer_hf
from vaultlayer_hf.base.events import EventKind

PACKAGE = Path(vaultlayer_hf.__file__).parent
WHERE_THE_KIND_IS = {"info": 0, "warn": 0, "warn_once": 1, "repeated": 0, "tell": 0}
"""Methods that emit an event, and the place of the kind among their arguments; ``Session.tell`` emits on rank 0."""


def emissions() -> list[tuple[str, ast.expr]]:
    """Return where an event is emitted and the expression of its kind."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parts[-2:] == ("base", "events.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                receiver = ast.unparse(node.func.value)
                place = WHERE_THE_KIND_IS.get(node.func.attr)
                emits = receiver.endswith("events") or (
                    node.func.attr == "tell" and receiver.endswith("session")
                )
                if place is not None and emits:
                    found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", node.args[place]))
    return found


def test_each_kind_is_emitted() -> None:
    """No kind is promised to those who listen that nothing ever emits."""
    emitted = {kind.attr for _, kind in emissions() if isinstance(kind, ast.Attribute)}
    assert {kind.name for kind in EventKind} == emitted


def test_each_emitted_kind_is_a_member() -> None:
    """What is emitted is one of the kinds that are described, never a text of its own."""
    wrong = [
        f"{where}: {ast.unparse(kind)}"
        for where, kind in emissions()
        if not ast.unparse(kind).startswith("EventKind.")
        and ast.unparse(kind) != "kind"  # handed on: typed as one
    ]
    assert not wrong


def test_each_kind_says_what_has_happened() -> None:
    """A listener finds a sentence with each kind, and the kind equals the text that it always was."""
    assert all(kind.sentence.endswith(".") for kind in EventKind)
    assert EventKind("walk-back") is EventKind.WALK_BACK == "walk-back"
