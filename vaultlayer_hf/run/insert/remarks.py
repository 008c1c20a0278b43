"""What a user should know beside the edits of a loop."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of
from vaultlayer_hf.run.insert.calls import assignments, function_of, is_method, loop_of, method_calls
from vaultlayer_hf.run.insert.drawn_ahead import seed_to_give
from vaultlayer_hf.run.insert.draws import in_use
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.pieces import in_other_branch
from vaultlayer_hf.run.insert.source import Script, dotted


def loop_remarks(script: Script, loop: Loop, ends_at_once: bool) -> list[str]:
    """Return the remarks; ``ends_at_once``: started again after its end, the loop finds that it is over."""
    remarks = []
    loads = [call for call in script.all(cst.Call) if _loads_states(script, call)]
    loads += method_calls(script, "load_state")
    loads = [
        one for one in loads if not _is_behind(script, loop, one) and not _is_elsewhere(script, loop, one)
    ]
    if loads:
        line = script.line(loads[0])
        remarks.append(f"What line {line} loads stays; what resume() brings back comes after it, and wins.")
    breaks = _leaves(script, loop.top) if loop.outer is None and not ends_at_once else []
    if breaks:
        remarks.append(
            f"Line {script.line(breaks[0])} ends the training early: a run that is started again after that goes on "
            "past it."
        )
    seed = seed_to_give(script, loop)
    return remarks + ([seed] if seed else []) + _second_starts(script, loop)


def _second_starts(script: Script, loop: Loop) -> list[str]:
    """Return what a start behind the first one does to what that has left on the disk."""
    remarks = []
    start = script.span(loop.top)[0]
    used = in_use(script, loop)
    for call in script.all(cst.Call):
        ways = list(script.around(call))
        if script.span(call)[0] > start or any(up is part for part in used for up in ways):
            continue
        path, line = script.path(call.func), script.line(call)
        method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
        asked = any(isinstance(up, (cst.If, cst.Try)) for up in ways)
        allowed = any(one.keyword is not None and one.keyword.value == "exist_ok" for one in call.args)
        if (path in ("os.mkdir", "os.makedirs") or method == "mkdir") and not asked and not allowed:
            remarks.append(
                f"Line {line} makes a folder, and ends a second start with an error where it is there: give it "
                "exist_ok=True."
            )
        if _empties(script, call) and _is_written(script, used, call):
            what = script.code(call.args[0].value)
            remarks.append(
                f"Line {line} empties {what} at each start, so what an earlier one has written there is lost: open it "
                'with "a".'
            )
    return remarks


def _empties(script: Script, call: Any) -> bool:
    """Tell whether a call opens a file for writing, as a new one."""
    modes = [one.value for one in call.args[1:]]
    return script.path(call.func) == "open" and any(
        isinstance(one, cst.SimpleString) and one.value.strip("'\"") in ("w", "wt", "w+") for one in modes
    )


def _is_written(script: Script, used: list[Any], call: Any) -> bool:
    """Tell whether the loop writes to the file that a call opens: by its name, or opened once more to add to it."""
    made = next((one for one in assignments(script) if one.value is call), None)
    names = {dotted(one) for one in made.targets} if made is not None else set()
    path = script.code(call.args[0].value)
    for part in used:
        if names & {dotted(one) for one in script.all((cst.Name, cst.Attribute), part)} - {""}:
            return True
        for other in script.all(cst.Call, part):
            if script.path(other.func) == "open" and other.args and script.code(other.args[0].value) == path:
                return True
    return False


def _is_behind(script: Script, loop: Loop, call: Any) -> bool:
    """Tell whether a call comes behind the loop: in its function, or in the module that has called that."""
    home = function_of(script, call)
    behind = script.span(call)[0] > script.span(loop.top)[1]
    return behind and (home is None or home is function_of(script, loop.top))


def _loads_states(script: Script, call: Any) -> bool:
    """Tell whether a call reads what a state is loaded from, and no data."""
    if script.path(call.func) != "torch.load":
        return False
    for up in script.around(call):
        if isinstance(up, cst.Return):
            return True
        if isinstance(up, cst.Call) and up is not call and "load" in dotted(up.func).rpartition(".")[2]:
            return True
    home = function_of(script, call)
    made = [one for one in assignments(script) if one.value is call]
    names = {dotted(target) for one in made for target in one.targets} - {""}
    read = [one for one in script.all((cst.Name, cst.Attribute)) if dotted(one) in names]
    for one in read:
        up = script.parent(one)
        keyed = (
            isinstance(up, cst.Subscript)
            and up.value is one
            and script.code(up.slice[0]).strip("rbf")[:1] in "'\""
        )
        given = (way for way in script.around(one) if isinstance(way, cst.Call))
        loaded = any(re.search("load|restore", dotted(way.func)) for way in given)
        if function_of(script, one) is home and (keyed or loaded):
            return True
    return False


def _is_elsewhere(script: Script, loop: Loop, call: Any) -> bool:
    """Tell whether a call is in a function that the training doesn't run: a hook, or one of the other branch."""
    home = function_of(script, call)
    if home is None or is_method(script, home) or any(up is home for up in script.around(loop.top)):
        return False
    places = calls_of(script, home)
    ways = [
        loop.top,
        *(
            place
            for up in script.around(loop.top)
            if isinstance(up, cst.FunctionDef)
            for place in calls_of(script, up)
        ),
    ]
    return all(any(in_other_branch(script, place, way) for way in ways) for place in places)


def _leaves(script: Script, loop: Any) -> list[Any]:
    """Return the ``break`` statements that end a loop."""
    return [node for node in script.all(cst.Break, loop, nested=False) if loop_of(script, node) is loop]
