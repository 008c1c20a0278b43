"""Loops that ask a progress bar how far they are: no checkpoint has that, and a new start's bar begins at 0."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import BARS, assignments, made_by
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.random_calls import quiet
from vaultlayer_hf.run.insert.source import Script, dotted

_PLACES = ("n", "last_print_n", "finished")
"""Attributes of bars that say how far they are."""


def refuse_asked_bars(script: Script, loop: Loop) -> None:
    """Raise UnclearError where the course of a loop hangs on how far a bar is."""
    opened = {
        dotted(item.asname.name)
        for item in script.all(cst.WithItem)
        if item.asname is not None
        and isinstance(item.item, cst.Call)
        and BARS.search(script.path(item.item.func))
    }
    asking = [
        one.test
        for one in script.all((cst.If, cst.While, cst.IfExp), loop.top)
        if not isinstance(one, cst.If) or not _only_shows(script, one)
    ]
    asking += [one.value for one in assignments(script, loop.top)]
    for one in [node for part in asking for node in script.all(cst.Attribute, part)]:
        name = dotted(one.value)
        if not name or one.attr.value not in _PLACES:
            continue
        if name in opened or any(BARS.search(path) for path in made_by(script, name)):
            raise UnclearError(
                f"line {script.line(one)} asks {script.code(one)}, and a checkpoint hasn't got how far a bar is: count "
                "in a variable"
            )


def _only_shows(script: Script, asks: Any) -> bool:
    """Tell whether what a condition decides on only prints and logs."""
    changes = (cst.Assign, cst.AugAssign, cst.AnnAssign, cst.Break, cst.Continue, cst.Return, cst.Raise)
    parts = [asks.body, *([asks.orelse] if asks.orelse is not None else [])]
    return all(not script.all(changes, one) and quiet(script, one) for one in parts)
