"""Conditions ahead of an epoch's batches that decide whether these are gone through, and ask what the batches change.

    if step >= last:          while step < last:
        break                     for batch in loader:

Where a resume goes on within the pass the answer was given, ahead of its first batch: asked again, it may be another.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.asked_again import changes_object, overlap
from vaultlayer_hf.run.insert.calls import loop_of
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within
from vaultlayer_hf.run.insert.pass_variables import walk_of
from vaultlayer_hf.run.insert.source import Edit, Script
from vaultlayer_hf.run.insert.walk import Walk

_WHY = "Within a pass that goes on, this was answered ahead of its first batch."


def answered_ahead(script: Script, loop: Loop, ckpt: str, trained: set[str]) -> list[Edit]:
    """Return the edits by which a resume within a pass comes to its batches; ``trained``: what steps change."""
    if loop.outer is None or loop.phase or not isinstance(loop.inner, cst.For):
        return []
    is_while = isinstance(loop.outer, cst.While)
    if is_while and _leaves(script, loop.inner):
        return []  # nobody knows there whether the pass that was left is still the newest one
    statements = [*ahead(script, loop), *ahead_within(script, loop)]
    first, inner = Walk(script), walk_of(script, loop.inner)
    first.block(statements)
    moving = {*trained, *first.written, *inner.written, *inner.changed}
    moving |= {on for on, method, _ in inner.calls if on and changes_object(script, on, method)}
    found: list[Edit] = []
    for one in _around(script, loop):
        if _reads(script, one.test, moving):
            found += _guard(script, one.test, ckpt, goes_in=_holds(script, one.body, loop))
    for one in [node for statement in statements for node in script.all(cst.If, statement, nested=False)]:
        body = _leaves_at_end(script, loop, one.body)
        other = isinstance(one.orelse, cst.Else) and _leaves_at_end(script, loop, one.orelse.body)
        if body != other and _reads(script, one.test, moving):
            found += _guard(script, one.test, ckpt, goes_in=other)
    # What the code ahead sets is set again before it is asked there, but not before the head of the loop.
    if is_while and _reads(script, loop.outer.test, moving - set(first.written) | set(inner.written)):
        found += _guard(script, loop.outer.test, ckpt, goes_in=True, unfinished=True)
    return found


def _guard(script: Script, test: Any, ckpt: str, *, goes_in: bool, unfinished: bool = False) -> list[Edit]:
    """Return the edits of a condition; ``goes_in``: whether the batches come where it holds.

    ``unfinished``: the checkpoint of a run that is over may lie at a pass's last batch, and that pass is over, too.
    """
    start, end = script.span(test)
    within = f"({ckpt}.finished is None and {ckpt}.batches_done)" if unfinished else f"{ckpt}.batches_done"
    return [
        Edit(start, start, f"{within} or (" if goes_in else f"not {within} and (", _WHY),
        Edit(end, end, ")", _WHY),
    ]


def _around(script: Script, loop: Loop) -> list[Any]:
    """Return the ``if`` statements of an epoch that its batches are within."""
    places = [loop.inner, *(call.call for call in loop.calls[loop.crossed :])]
    found: list[Any] = []
    for place in places:
        for one in script.around(place):
            if one is loop.outer or isinstance(one, cst.FunctionDef):
                break
            if isinstance(one, cst.If) and not any(one is other for other in found):
                found.append(one)
    return found


def _holds(script: Script, body: Any, loop: Loop) -> bool:
    places = [loop.inner, *(call.call for call in loop.calls[loop.crossed :])]
    return any(up is body for place in places for up in script.around(place))


def _reads(script: Script, test: Any, moving: set[str]) -> bool:
    read = Walk(script)
    read.expression(test)
    return any(overlap(one, other) for one in read.read_first for other in moving)


def _leaves_at_end(script: Script, loop: Loop, body: Any) -> bool:
    """Tell whether a block ends with what leaves the epoch ahead of its batches, or all of the training."""
    statements = getattr(body, "body", ())
    last = statements[-1] if statements else None
    small = last.body[-1] if isinstance(last, cst.SimpleStatementLine) else last
    if isinstance(small, cst.Return):
        return True
    return isinstance(small, (cst.Break, cst.Continue)) and loop_of(script, small) is loop.outer


def _leaves(script: Script, inner: Any) -> bool:
    """Tell whether a pass may be left before its last batch."""
    breaks = [one for one in script.all(cst.Break, inner.body, nested=False) if loop_of(script, one) is inner]
    return bool(breaks or script.all(cst.Return, inner.body, nested=False))
