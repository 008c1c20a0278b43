"""Loops that a clock or a signal ends: where a job's hours are over, the next start is to go on.

A step that such a condition makes the last one can't be told from the last one of the run, so the loop is left alone.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import CLOCK
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted


def refuse_clocks(script: Script, loop: Loop) -> None:
    """Raise UnclearError where the training, or a pass through its data, ends by what a clock or a signal says."""
    shown = _shown_by_clocks(script)
    top = loop.outer if loop.outer is not None else loop.inner
    tests = [one.test for one in (loop.outer, loop.inner) if isinstance(one, cst.While)]
    for kind in (cst.Break, cst.Return):
        for node in script.all(kind, top, nested=False):
            for around in script.around(node):
                if around is top:
                    break
                tests += [around.test] if isinstance(around, cst.If) else []
    for test in tests:
        if _reads(script, test, shown):
            raise UnclearError(
                f"line {script.line(test)} ends the loop by a clock or a signal, where the next start is to go on, and "
                "an edit would take it for the end of the training: call ckpt.step() at the end of each step, and "
                "ckpt.finish() only where the time was enough"
            )


def _shown_by_clocks(script: Script) -> set[str]:
    """Return the names of variables and functions whose values hang on what a clock shows, or on a signal."""
    shown = _set_by_signals(script)
    while True:
        before = len(shown)
        assignments = [one for kind in (cst.Assign, cst.AnnAssign, cst.AugAssign) for one in script.all(kind)]
        for node in assignments:
            under = _is_under(script, node, shown)
            shown |= {
                name
                for name, value in _assigned(node)
                if value is not None and (under or _reads(script, value, shown))
            }
        for node in script.all(cst.Return):
            function = next((one for one in script.around(node) if isinstance(one, cst.FunctionDef)), None)
            returned = node.value is not None and _reads(script, node.value, shown)
            if function is not None and (returned or _is_under(script, node, shown)):
                shown.add(function.name.value)
        if len(shown) == before:
            return shown


def _assigned(node: Any) -> list[tuple[str, Any]]:
    """Return the names that a statement assigns, each with its value; of ``a, b = 1, 2`` each with its own."""
    found: list[tuple[str, Any]] = []
    for target in [one.target for one in node.targets] if isinstance(node, cst.Assign) else [node.target]:
        if not isinstance(target, (cst.Tuple, cst.List)):
            found.append((dotted(target), node.value))
            continue
        names = [dotted(one.value) for one in target.elements]
        values = [node.value] * len(names)
        if isinstance(node.value, (cst.Tuple, cst.List)) and len(node.value.elements) == len(names):
            values = [one.value for one in node.value.elements]
        found += zip(names, values, strict=True)
    return [(name, value) for name, value in found if name]


def _set_by_signals(script: Script) -> set[str]:
    """Return the names that the script's handlers of signals assign."""
    handlers = {
        dotted(call.args[1].value).rpartition(".")[2]
        for call in script.all(cst.Call)
        if script.path(call.func) in ("signal.signal", "signal") and len(call.args) > 1
    }
    return {
        dotted(target.target)
        for function in script.all(cst.FunctionDef)
        if function.name.value in handlers
        for target in script.all(cst.AssignTarget, function)
        if dotted(target.target)
    }


def _is_under(script: Script, node: Any, shown: set[str]) -> bool:
    """Tell whether an ``if`` that hangs on a clock decides on a statement that gives a plain value."""
    plain = node.value is None or dotted(node.value) in ("True", "False")
    if not plain:
        return False
    for around in script.around(node):
        if isinstance(around, cst.FunctionDef):
            return False
        if isinstance(around, cst.If) and _reads(script, around.test, shown):
            return True
    return False


def _reads(script: Script, node: Any, shown: set[str]) -> bool:
    calls = script.all(cst.Call, node)
    if any(CLOCK.search(script.path(call.func)) for call in calls):
        return True
    if any(dotted(call.func).rpartition(".")[2] in shown for call in calls if dotted(call.func)):
        return True
    names = {dotted(one) for kind in (cst.Name, cst.Attribute) for one in script.all(kind, node)}
    return bool(names & shown)
