"""The names that functions assign, as read from their bytecode."""

from __future__ import annotations

import argparse
import asyncio.base_events
import dis
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from vaultlayer_hf.state.assigned_names import attributes_assigned, names_assigned


def _odd(shared: int) -> Any:
    """Assigns in every way, and shares an argument and a variable with functions in it."""
    global TOLD
    TOLD = plain = 1
    made = other = 0

    def inner(self: Any) -> None:
        nonlocal shared, made
        shared, made, self.within = 1, 2, other

    return inner, plain


def _many() -> CodeType:
    """Return a function with more names than a byte counts."""
    lines = [f"    self.its_{number} = self.read_{number}" for number in range(300)]
    made: dict[str, Any] = {}
    exec("\n".join(["def fill(self):", *lines]), made)
    return made["fill"].__code__


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


_CODES = [
    _odd.__code__,
    _many(),
    *(
        compile(inspect.getsource(module), module.__name__, "exec")
        for module in (argparse, asyncio.base_events)
    ),
]


@pytest.mark.parametrize("code", _CODES, ids=lambda code: code.co_name)
def test_they_are_those_that_dis_shows(code: CodeType) -> None:
    """Whatever Python reads them: attributes, globals and variables of closures, also in functions within it."""
    shown = [(one.opname, one.argval) for inner in _codes(code) for one in dis.get_instructions(inner)]
    assert list(attributes_assigned(code)) == [name for kind, name in shown if kind == "STORE_ATTR"]
    kinds = ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF")
    assert names_assigned(code) == {name for kind, name in shown if kind in kinds}


def test_what_one_call_keeps_for_itself_is_not_among_them() -> None:
    """A handler's own variables outlive no call of it; what it shares, and its globals and attributes, do."""
    assert names_assigned(_odd.__code__) == {"TOLD", "made", "other", "shared", "within"}
