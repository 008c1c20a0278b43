"""Passes through the data that a step ends before their last batch: a resume there must not go on with them.

Where the loop leaves the pass in the block of the step, the step is noted right there, as the last one of the pass
(``leaves_pass``). Elsewhere the condition is looked at once more ahead of the next batch (``leave_again``).
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.asked_again import changes_object
from vaultlayer_hf.run.insert.calls import loop_of
from vaultlayer_hf.run.insert.early_ends import ends_behind
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.source import Edit, Script
from vaultlayer_hf.run.insert.walk import Walk

_TRIAL = re.compile(r"dry_?run|debug|smoke|sanity|fast_dev|test_run", re.IGNORECASE)
"""Options under which a pass is cut short only to see whether the script runs."""


def leaves_pass(script: Script, loop: Loop) -> list[Any]:
    """Return the statements that leave a pass through the data, of those that follow the step in its own block."""
    if loop.outer is None or not isinstance(loop.inner, cst.For):
        return []
    ends = [node for one in loop.tail for node in ends_behind(script, loop, one)]
    found = [one for one in ends if isinstance(one, cst.Break) and loop_of(script, one) is loop.inner]
    if len(loop.calls) > loop.crossed and not loop.crossed:  # the pass has a function of its own
        found += [one for one in ends if isinstance(one, cst.Return)]
    return found


def leave_again(script: Script, loop: Loop, ckpt: str, kept: set[str]) -> list[Edit]:
    """Return the edits that keep a resumed run from the next batch of a pass that was over. Raises UnclearError."""
    why = "A run that goes on after the last step of a pass has no other step to do in it."
    first = loop.inner.body.body[0]
    return [
        script.lines_before(first, [f"if {ckpt}.batches_done > 1 and {test}:", "    break"], why)
        for test in _breaks_of_pass(script, loop, kept)
    ]


def _breaks_of_pass(script: Script, loop: Loop, kept: set[str]) -> list[str]:
    """Return the conditions under which a step is the last of its pass, though batches are left.

    A run that goes on from such a step would train on the next batch: it has to look at them first. ``kept``:
    variables that come back. Raises UnclearError for a condition on anything else that the loop changes.
    """
    if loop.outer is None or not isinstance(loop.inner, cst.For):
        return []
    step = loop.calls[loop.crossed - 1].call if loop.crossed else loop.steps[-1]
    changed = Walk(script)
    changed.target(loop.inner.target)
    changed.block(loop.top.body.body)
    objects = {on for on, method, _ in changed.calls if on and changes_object(script, on, method)}
    found = []
    loops = (cst.For, cst.While)
    noted = leaves_pass(script, loop)
    for node in [
        *script.all(cst.Break, loop.inner, nested=False),
        *script.all(cst.Return, loop.inner, nested=False),
    ]:
        if any(node is one for one in noted):
            continue
        around = list(script.around(node))
        home = next(one for one in around if isinstance(one, loops))
        if script.span(node)[0] < script.span(step)[0] or (
            isinstance(node, cst.Break) and home is not loop.inner
        ):
            continue
        if isinstance(node, cst.Return) and len(loop.calls) == loop.crossed:
            continue  # it leaves the epochs, too
        within = around[: next(number for number, one in enumerate(around) if one is loop.inner)]
        tests = [one.test for one in within if isinstance(one, cst.If)]
        plain = not any(isinstance(one, (cst.Else, *loops, cst.Try)) for one in within)
        plain = plain and not any(
            isinstance(script.parent(one), cst.If) and isinstance(one, cst.If) for one in within
        )
        read = Walk(script)
        for test in tests:
            read.expression(test)
        moved = set(read.read_first) & {*changed.written, *changed.changed, *objects}
        trial = any(_TRIAL.search(script.code(test)) for test in tests)
        if tests and ((not moved and not read.calls) or trial):
            continue  # the same in each pass: a run of one batch, to try the script
        text = " and ".join(f"({script.code(test)})" for test in reversed(tests))
        if (
            not tests
            or not plain
            or moved - kept
            or any(script.all(cst.Call, test) for test in tests)
            or loop.phase
        ):
            raise UnclearError(
                f"line {script.line(node)} leaves a pass through the data before its end, and a run that goes on from "
                "there would train on its next batch: give the loader fewer batches instead"
            )
        found.append(text)
    return list(dict.fromkeys(found))
