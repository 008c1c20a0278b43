"""What a user should know beside the edits of a loop."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, method_calls
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Script


def loop_remarks(script: Script, loop: Loop, ends_at_once: bool) -> list[str]:
    """Return the remarks; ``ends_at_once``: started again after its end, the loop finds that it is over."""
    remarks = []
    loads = [call for call in script.all(cst.Call) if script.path(call.func) == "torch.load"]
    loads += method_calls(script, "load_state")
    loads = [call for call in loads if not _is_behind(script, loop, call)]
    if loads:
        line = script.line(loads[0])
        remarks.append(f"What line {line} loads stays; what resume() brings back comes after it, and wins.")
    breaks = _leaves(script, loop.top) if loop.outer is None and not ends_at_once else []
    if breaks:
        remarks.append(
            f"Line {script.line(breaks[0])} ends the training early: a run that is started again after that goes on "
            "past it."
        )
    return remarks


def _is_behind(script: Script, loop: Loop, call: Any) -> bool:
    """Tell whether a call comes behind the loop: in its function, or in the module that has called that."""
    home = function_of(script, call)
    behind = script.span(call)[0] > script.span(loop.top)[1]
    return behind and (home is None or home is function_of(script, loop.top))


def _leaves(script: Script, loop: Any) -> list[Any]:
    """Return the ``break`` statements that end a loop."""
    return [
        node
        for node in script.all(cst.Break, loop, nested=False)
        if next(one for one in script.around(node) if isinstance(one, (cst.For, cst.While))) is loop
    ]
