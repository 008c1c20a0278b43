"""The variable by which a loop counts its steps: ``resume()`` returns what it is to be."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments
from vaultlayer_hf.run.insert.early_ends import early_ends
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.step_end import synced


def step_counter(script: Script, loop: Loop, *, rounds: bool = False) -> str:
    """Return the variable of the same function that is 0 before the loop and counts its steps; ``""`` for none.

    Of several trainings it counts those of one: else it is a variable like others. ``rounds``: whether each round is
    counted as a step, those too that end ahead of the optimizer's step.
    """
    if len(loop.calls) > loop.crossed or loop.only_if:
        return ""
    guarded = [one for statement in loop.suite.body for one in synced(script, statement)] if loop.sync else []
    for statement in guarded if loop.sync else loop.suite.body:
        if not isinstance(statement, cst.SimpleStatementLine):
            continue
        for node in script.all(cst.AugAssign, statement, nested=False):
            name = dotted(node.target)
            if not isinstance(node.operator, cst.AddAssign) or script.code(node.value) != "1":
                continue
            before = [
                one for one in assignments(script) if any(dotted(target) == name for target in one.targets)
            ]
            counted = [one for one in script.all(cst.AugAssign) if dotted(one.target) == name]
            if (
                len(before) == len(counted) == 1
                and script.code(before[0].value) == "0"
                and not _within(script, before[0].node, loop.top)
                and (loop.trainings is None or _within(script, before[0].node, loop.trainings.own))
                and not _parted(script, loop, node, rounds)
            ):
                return name
    return ""


def _parted(script: Script, loop: Loop, counts: Any, rounds: bool) -> bool:
    """Tell whether a round may end between the optimizer's step and where it is counted."""
    ends = early_ends(script, loop, breaks=loop.outer is not None)
    if rounds:
        return any(script.span(one)[0] < script.span(loop.tail[-1])[1] for one in ends)
    first, last = sorted((script.span(counts)[0], script.span(loop.steps[0])[0]))
    return any(first < script.span(one)[0] < last for one in ends)


def _within(script: Script, node: Any, outer: Any) -> bool:
    return any(one is outer for one in script.around(node))
