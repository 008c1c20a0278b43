"""Objects of a script's own class that hold a loader and its open iterator, and give batches by a method.

class Endless:
    def __init__(self, loader):
        self.loader = loader
        self.batches = iter(loader)

    def next(self):
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, made_by, receiver, sources_of
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.random_calls import quiet
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.streams import DrawnLoader
from vaultlayer_hf.run.insert.walk import Walk


def held_loaders(script: Script, loop: Loop) -> list[DrawnLoader]:
    """Return the loaders that a loop draws from through such objects, where all that happens to them is seen."""
    found = []
    for home in script.all(cst.ClassDef):
        if home.bases or script.parent(home) is not script.module:
            continue
        nexts = [
            call
            for call in script.all(cst.Call, home)
            if dotted(call.func) == "next" and call.args and dotted(call.args[0].value).startswith("self.")
        ]
        iterators = {dotted(call.args[0].value) for call in nexts}
        if len(iterators) == 1:
            one = _held(script, loop, home, nexts, iterators.pop())
            if one is not None:
                found.append(one)
    return found


def _held(script: Script, loop: Loop, home: Any, nexts: list[Any], iterator: str) -> DrawnLoader | None:
    opens = [one for one in sources_of(script, iterator) if any(up is home for up in script.around(one))]
    if not opens or not all(
        isinstance(one, cst.Call) and dotted(one.func) == "iter" and len(one.args) == 1 for one in opens
    ):
        return None
    loaders = {dotted(one.args[0].value) for one in opens}
    attribute = next(iter(loaders)).removeprefix("self.")
    if len(loaders) != 1 or not attribute.isidentifier() or f"self.{attribute}" not in loaders:
        return None
    functions = {one.name.value: one for one in script.all(cst.FunctionDef, home)}
    first = [one for one in opens if function_of(script, one) is functions.get("__init__")]
    statement = script.parent(script.parent(first[0])) if len(first) == 1 else None
    if (
        not isinstance(statement, cst.SimpleStatementLine)
        or script.parent(statement) is not functions["__init__"].body
    ):
        return None
    uses = [one for one in script.all(cst.Attribute, home) if dotted(one) == iterator]
    if len(uses) != len(opens) + len(nexts):
        return None
    for name, function in functions.items():
        walk = Walk(script, follow=False)
        walk.suite(function.body)
        lasting = {one for one in (*walk.written, *walk.changed) if one.startswith("self.")}
        if name != "__init__" and (lasting - {iterator} or function.decorators):
            return None
    name = _only_object(script, loop, home, functions)
    draws = {function_of(script, one).name.value for one in nexts}
    if not name or "__init__" in draws or not _asked_first(script, loop, home, name, draws):
        return None
    if not all(_asked_at_once(script, one, iterator) for one in opens if one is not first[0]):
        return None
    behind = list(functions["__init__"].body.body)
    behind = behind[next(number for number, one in enumerate(behind) if one is statement) + 1 :]
    if any(script.all(cst.Call, one) for one in behind):
        return None
    stream = script.free(f"{attribute}_stream", f"{attribute}_of_batches")
    return DrawnLoader(f"{name}.{stream}", f"self.{attribute}", opens, statement, False, name)


def _only_object(script: Script, loop: Loop, home: Any, functions: dict[str, Any]) -> str:
    """Return what the one object of a class is called, where only its methods are called, and in the loop."""
    made = [call for call in script.all(cst.Call) if dotted(call.func) == home.name.value]
    assign = script.parent(made[0]) if len(made) == 1 else None
    if not isinstance(assign, cst.Assign) or len(assign.targets) != 1:
        return ""
    name = dotted(assign.targets[0].target)
    if not name.isidentifier() or function_of(script, made[0]) is not function_of(script, loop.top):
        return ""
    if made_by(script, name) != [home.name.value] or any(one is loop.top for one in script.around(made[0])):
        return ""
    for one in script.all(cst.Name):
        if one.value != name or one is assign.targets[0].target:
            continue
        up = script.parent(one)
        if isinstance(up, cst.Attribute) and up.attr is one:
            continue
        if not isinstance(up, cst.Attribute) or up.attr.value not in functions:
            return ""
        if not any(outer is loop.inner for outer in script.around(one)) and up.attr.value != "__len__":
            return ""
    return name


def _asked_first(script: Script, loop: Loop, home: Any, name: str, draws: set[str]) -> bool:
    """Tell whether nothing draws between where the object is made and where it is asked for its first batch."""

    def asks(node: Any) -> bool:
        return any(
            isinstance(call.func, cst.Attribute) and receiver(call) == name and call.func.attr.value in draws
            for call in script.all(cst.Call, node)
        )

    made = next(call for call in script.all(cst.Call) if dotted(call.func) == home.name.value)
    line = script.parent(script.parent(made))
    block = list(getattr(script.parent(line), "body", ()))
    places = [number for number, one in enumerate(block) if one is line]
    path = [loop.top, *script.around(loop.top)]
    ends = [number for number, one in enumerate(block) if any(one is up for up in path)]
    if not places or not ends:
        return False
    between = [
        one for one in block[places[0] + 1 : ends[0]] if not isinstance(one, (cst.FunctionDef, cst.ClassDef))
    ]
    for body in (loop.top.body.body, loop.inner.body.body):
        for one in body:
            if asks(one):
                break
            if not any(one is up for up in script.around(loop.inner)) and one is not loop.inner:
                between.append(one)
    return all(quiet(script, one) for one in between)


def _asked_at_once(script: Script, opened: Any, iterator: str) -> bool:
    """Tell whether the statement behind one that opens the iterator again asks for its first batch."""
    line = script.parent(script.parent(opened))
    block = list(getattr(script.parent(line), "body", ()))
    at = next((number for number, one in enumerate(block) if one is line), None)
    if at is None or at + 1 >= len(block):
        return False
    return any(
        dotted(call.func) == "next" and call.args and dotted(call.args[0].value) == iterator
        for call in script.all(cst.Call, block[at + 1])
    )
