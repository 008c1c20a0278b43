"""Rounds of a loop that end by ``continue`` or ``break`` ahead of where others do."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import loop_of, method_calls
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.pieces import in_other_branch
from vaultlayer_hf.run.insert.source import Script

_CLEARS = re.compile(r"zero_grad|\.grad\s*=")


def early_ends(script: Script, loop: Loop, *, breaks: bool = False) -> list[Any]:
    """Return the ``continue`` statements of the loop over the batches; ``breaks``: and its ``break`` statements."""
    kinds = (cst.Continue, cst.Break) if breaks else (cst.Continue,)
    return [
        node
        for node in script.all(kinds, loop.inner.body, nested=False)
        if loop_of(script, node) is loop.inner
    ]


def ends_behind(script: Script, loop: Loop, statement: Any) -> list[Any]:
    """Return the statements by which one of those from the step on leaves it; of the step's own, those behind it."""
    kinds = (cst.Break, cst.Continue, cst.Return)
    found = [
        node
        for node in script.all(kinds, statement, nested=False)
        if isinstance(node, cst.Return) or loop_of(script, node) is loop.inner
    ]
    if statement is loop.tail[0]:
        found = [node for node in found if _comes_behind(script, loop, node)]
    return found


def _comes_behind(script: Script, loop: Loop, node: Any) -> bool:
    """Tell whether something in the step's statement is reached by way of the step: no other branch, no handler."""
    step = loop.calls[loop.crossed - 1].call if loop.crossed else loop.steps[-1]
    if script.span(node)[0] < script.span(step)[1] or in_other_branch(script, node, step):
        return False
    ways = list(script.around(step))
    handlers = [up for up in script.around(node) if isinstance(up, cst.ExceptHandler)]
    return all(
        not any(up is script.parent(one) for up in ways) or any(up is one for up in ways) for one in handlers
    )


def keeps_gradients(script: Script, loop: Loop, end: Any) -> bool:
    """Tell whether a round that ends early leaves gradients which nothing clears ahead of the next ``backward()``."""
    at = script.span(end)[0]
    back = [
        script.span(one)[0]
        for one in method_calls(script, "backward", loop.inner.body)
        if not in_other_branch(script, end, one)
    ]
    back = [one for one in back if one < at]
    block = next(
        one for one in script.around(end) if isinstance(one, (cst.IndentedBlock, cst.SimpleStatementSuite))
    )
    own = script.text[max(script.span(block)[0], *back) : at] if back else ""
    ahead = script.text[script.span(loop.inner.body)[0] : min(back, default=at)]
    return bool(back) and not _CLEARS.search(ahead) and not _CLEARS.search(own)
