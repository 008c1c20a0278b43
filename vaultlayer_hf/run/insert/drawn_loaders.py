"""Loaders that a loop draws from with next(), and the Streams that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, sources_of
from vaultlayer_hf.run.insert.held_loaders import held_loaders
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.random_calls import quiet
from vaultlayer_hf.run.insert.source import Edit, Script, dotted
from vaultlayer_hf.run.insert.streams import DrawnLoader, generator_of, is_iterator, opened_there


def drawn_loaders(script: Script, loop: Loop) -> list[DrawnLoader]:
    """Return the loaders that a loop draws from with next(), in a way that Streams can stand for; else none."""
    if any(path.startswith(("accelerate", "torch.distributed")) for path in script.imports.values()):
        return []  # several ranks may have it
    found: dict[str, DrawnLoader] = {}
    for call in script.all(cst.Call, loop.inner):
        if dotted(call.func) != "next" or not call.args or opened_there(script, call.args[0].value):
            continue
        name = dotted(call.args[0].value)
        if name not in found:
            one = _drawn(script, loop, name)
            if one is None:
                return []
            found[name] = one
    held = held_loaders(script, loop)
    opened = [*(one for one in found.values() if not one.endless), *held]
    # torch draws a seed where an iterator is opened, and the order where its first batch is asked for: a resume repeats
    # both at once, which is the same only where nothing else draws between them.
    if len(opened) > 1 or any(_draws_before_next(script, loop, one) for one in opened if not one.holder):
        return []
    return [*found.values(), *held]


def _drawn(script: Script, loop: Loop, name: str) -> DrawnLoader | None:
    """Return the loader behind an iterator, where all that happens to it is seen."""
    opens = sources_of(script, name)
    if not name.isidentifier() or not opens or not all(isinstance(one, cst.Call) for one in opens):
        return None
    home = function_of(script, loop.top)
    nexts = [
        call
        for call in script.all(cst.Call)
        if dotted(call.func) == "next" and call.args and dotted(call.args[0].value) == name
    ]
    if len([one for one in script.all(cst.Name) if one.value == name and _is_variable(script, one)]) != len(
        opens
    ) + len(nexts):
        return None
    if any(function_of(script, one) is not home for one in (*opens, *nexts)):
        return None
    endless = len(opens) == 1 and _goes_round(generator_of(script, opens[0]))
    given = [one.args[0].value for one in opens if len(one.args) == 1]
    if len(given) != len(opens) or not (endless or all(dotted(one.func) == "iter" for one in opens)):
        return None
    loader = script.code(given[0])
    made = sources_of(script, loader) if dotted(given[0]) else given
    if not made or any(is_iterator(script, one) for one in made):
        return None
    if not endless and (not dotted(given[0]) or any(script.code(one) != loader for one in given)):
        return None
    if any(one is loop.top for source in made for one in script.around(source)):
        return None
    ahead = [one for one in opens if script.span(one)[0] < script.span(loop.top)[0]]
    behind = [one for one in opens if not any(one is other for other in ahead)]
    blocks = [one for one in script.around(loop.top) if isinstance(one, (cst.IndentedBlock, cst.Module))]
    first = script.parent(script.parent(ahead[0])) if len(ahead) == 1 else None
    if not isinstance(first, cst.SimpleStatementLine) or script.parent(first) is not blocks[0]:
        return None
    if any(not any(up is loop.inner for up in script.around(one)) for one in behind):
        return None
    if endless:
        return DrawnLoader(name, loader, opens, first, endless)
    stream = script.free(f"{loader.rpartition('.')[2]}_stream", f"{name}_stream")
    return DrawnLoader(stream, loader, opens, first, endless)


def _is_variable(script: Script, name: Any) -> bool:
    up = script.parent(name)
    if isinstance(up, cst.Attribute):
        return up.attr is not name and not any(
            isinstance(one, (cst.Import, cst.ImportFrom)) for one in script.around(name)
        )
    return not isinstance(up, (cst.ImportAlias, cst.AsName)) and not (
        isinstance(up, cst.Arg) and up.keyword is name
    )


def _draws_before_next(script: Script, loop: Loop, drawn: DrawnLoader) -> bool:
    """Tell whether something may draw between where an iterator is opened and where its first batch is asked for."""
    name = dotted(script.parent(drawn.opens[0]).targets[0].target)

    def asks(node: Any) -> bool:
        calls = [call for call in script.all(cst.Call, node) if dotted(call.func) == "next"]
        return any(call.args and dotted(call.args[0].value) == name for call in calls)

    between: list[Any] = []
    block = list(script.parent(drawn.first).body)
    at = next(number for number, one in enumerate(block) if one is drawn.first)
    end = next(
        number
        for number, one in enumerate(block)
        if any(one is up for up in (loop.top, *script.around(loop.top)))
    )
    between += [one for one in block[at + 1 : end] if not isinstance(one, (cst.FunctionDef, cst.ClassDef))]
    for body in (loop.top.body.body, loop.inner.body.body):
        for one in body:
            if asks(one):
                break
            between.append(one)
    for call in drawn.opens:
        line = script.parent(script.parent(call))
        if line is drawn.first:
            continue
        block = list(script.parent(line).body)
        at = next(number for number, one in enumerate(block) if one is line)
        for one in block[at + 1 :]:
            if asks(one):
                break
            between.append(one)
    return not all(quiet(script, one) for one in between)


def _goes_round(function: Any) -> bool:
    """Tell whether a generator gives the batches of its one parameter again and again, and does nothing else."""
    if function is None or len(function.params.params) != 1 or function.decorators:
        return False
    given = function.params.params[0].name.value
    body = list(function.body.body)
    if isinstance(body[0], cst.SimpleStatementLine) and isinstance(body[0].body[0], cst.Expr):
        body = body[1:] if isinstance(body[0].body[0].value, cst.SimpleString) else body
    if len(body) != 1 or not isinstance(body[0], cst.While) or body[0].orelse is not None:
        return False
    test = body[0].test
    always = (isinstance(test, cst.Name) and test.value == "True") or (
        isinstance(test, cst.Integer) and test.value != "0"
    )
    inside = body[0].body.body
    if not always or len(inside) != 1:
        return False
    one = inside[0]
    if isinstance(one, cst.For):
        value = _only_expression(getattr(one.body, "body", ()))
        whole = dotted(one.iter) == given and one.orelse is None
        return whole and isinstance(value, cst.Yield) and dotted(value.value) == dotted(one.target) != ""
    value = _only_expression([one])
    return (
        isinstance(value, cst.Yield)
        and isinstance(value.value, cst.From)
        and dotted(value.value.item) == given
    )


def _only_expression(statements: Any) -> Any:
    """Return the expression that some statements consist of; None for any others."""
    small: Any = getattr(statements[0], "body", ()) if len(statements) == 1 else ()
    found: Any = small[0] if isinstance(small, (list, tuple)) and len(small) == 1 else None
    return found.value if isinstance(found, cst.Expr) else None


def stream_edits(script: Script, drawn: Sequence[DrawnLoader]) -> list[Edit]:
    """Return the edits that put Streams in place of loaders."""
    edits: list[Edit] = []
    for one in drawn:
        why = f"Knows where {one.stream if one.endless else one.loader} is in its data, so that a resume goes on there."
        if one.holder:
            made = f"self.{one.stream.rpartition('.')[2]}"
            edits.append(script.lines_before(one.first, [f"{made} = Checkpointer.stream({one.loader})"], why))
            edits += [Edit(*script.span(call.args[0].value), made, why) for call in one.opens]
            continue
        if one.endless:
            start, end = script.span(one.opens[0].func)
            behind = script.span(one.opens[0].args[0].value)[1]
            edits += [
                Edit(start, end, "Checkpointer.stream", why),
                Edit(behind, behind, ", endless=True", why),
            ]
            continue
        edits.append(
            script.lines_before(one.first, [f"{one.stream} = Checkpointer.stream({one.loader})"], why)
        )
        for call in one.opens:
            start, end = script.span(call.args[0].value)
            edits.append(Edit(start, end, one.stream, why))
    return edits
