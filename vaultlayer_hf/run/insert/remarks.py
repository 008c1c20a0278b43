"""What a user should know beside the edits of a loop: variables that a resume doesn't bring back."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert.flow import events, written_by
from vaultlayer_hf.run.insert.loop import Loop, method_calls
from vaultlayer_hf.run.insert.source import Script, libcst_or_error


def loop_remarks(script: Script, loop: Loop, counter: str) -> list[str]:
    """Return the remarks; ``counter`` is the variable that is brought back."""
    cst: Any = libcst_or_error()
    remarks = []
    carried: dict[str, int] = {}
    for one in [loop.inner, *([loop.outer] if loop.outer is not None else [])]:
        carried |= {name: line for name, line in _carried(script, one).items() if name not in carried}
    carried.pop(counter, None)
    if carried:
        listed = ", ".join(f"{name} (line {line})" for name, line in carried.items())
        remarks.append(f"A resume doesn't bring back {listed}.")
    loads = [call for call in script.all(cst.Call) if script.path(call.func) == "torch.load"]
    loads += method_calls(script, "load_state")
    if loads:
        line = script.line(loads[0])
        remarks.append(f"What line {line} loads stays; what resume() brings back comes after it, and wins.")
    breaks = _leaves(script, loop.top) if loop.outer is None else []
    if breaks:
        remarks.append(
            f"Line {script.line(breaks[0])} ends the training early: a run that is started again after that goes on "
            "behind it."
        )
    unbound = _unbound_behind(script, loop.top)
    if unbound:
        listed = ", ".join(f"{name} (line {line})" for name, line in unbound.items())
        remarks.append(
            f"Only the loop sets {listed}: a run that is started again after its end hasn't got it."
        )
    returns = script.all(cst.Return, loop.top, nested=False)
    if returns:
        remarks.append(f"Line {script.line(returns[0])} leaves the loop before finish(): call it there, too.")
    return remarks


def _leaves(script: Script, loop: Any) -> list[Any]:
    """Return the ``break`` statements that end a loop."""
    cst: Any = libcst_or_error()
    return [
        node
        for node in script.all(cst.Break, loop, nested=False)
        if next(one for one in script.around(node) if isinstance(one, (cst.For, cst.While))) is loop
    ]


def _unbound_behind(script: Script, loop: Any) -> dict[str, int]:
    """Return the names that are read behind a loop and set by nothing but it, and where they are read."""
    body = list(script.parent(loop).body)
    position = next(number for number, one in enumerate(body) if one is loop)
    before = {name for one in body[:position] for name, writes, _ in events(one) if writes}
    inside = {name for name, writes, _ in events(loop) if writes} - before
    read: dict[str, int] = {}
    for one in body[position + 1 :]:
        for name, writes, node in events(one):
            if writes:
                inside.discard(name)
            elif name in inside:
                read.setdefault(name, script.line(node))
    return read


def _carried(script: Script, loop: Any) -> dict[str, int]:
    """Return the names that one round of a loop leaves to the next, and the line at which it does."""
    read_first: set[str] = set()
    cst: Any = libcst_or_error()
    given = written_by(loop.target) if isinstance(loop, cst.For) else ()
    written = {name: script.line(node) for name, _, node in given}
    for name, writes, node in events(loop.body):
        if writes:
            written.setdefault(name, script.line(node))
        elif name not in written:
            read_first.add(name)
    return {name: line for name, line in written.items() if name in read_first}
