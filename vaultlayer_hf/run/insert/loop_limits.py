"""Loops that are understood, and that a resume couldn't bring back right: these are left alone, with the reason."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert.calls import is_schedule, is_statement, method_calls, receiver
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted, libcst_or_error
from vaultlayer_hf.run.insert.walk import Walk


def refuse_what_cannot_resume(script: Script, loop: Loop) -> None:
    """Raise UnclearError for a loop whose position or schedule a checkpoint would miss."""
    cst: Any = libcst_or_error()
    for call in script.all(cst.Call, loop.inner):
        if dotted(call.func) == "next":
            raise UnclearError(
                f"line {script.line(call)} draws its batches with next(), so their position isn't seen: go through "
                "ckpt.steps(dataloader, total=…) instead"
            )
    for name, line in _schedules(
        script, _behind(script, loop.condition) if loop.condition is not None else []
    ):
        raise UnclearError(
            f"{name}.step() in line {line} comes after the end of the step: move it into the block of optimizer.step()"
        )
    for name, line in _schedules(script, ahead(script, loop) if loop.outer is not None else []):
        raise UnclearError(
            f"{name}.step() in line {line} comes before an epoch's batches, where a resume within the epoch would "
            "repeat it: move it behind them"
        )


def _schedules(script: Script, statements: list[Any]) -> list[tuple[str, int]]:
    """Return the learning rate schedules that these statements step, and where."""
    calls = [call for statement in statements for call in method_calls(script, "step", statement)]
    return [
        (receiver(call), script.line(call))
        for call in calls
        if receiver(call) and is_schedule(script, receiver(call))
    ]


def ahead(script: Script, loop: Loop) -> list[Any]:
    """Return the statements of an epoch ahead of its batches."""
    node = loop.calls[-1].call if len(loop.calls) > loop.crossed else loop.inner
    inside = [node, *script.around(node)]
    position = next(number for number, one in enumerate(inside) if one is loop.outer)
    body = loop.outer.body.body
    return list(body[: next(number for number, one in enumerate(body) if one is inside[position - 2])])


def ahead_within(script: Script, loop: Loop) -> list[Any]:
    """Return the statements ahead of the batches in a function between the epochs and them."""
    if len(loop.calls) == loop.crossed:
        return []
    body = loop.calls[loop.crossed].function.body.body
    inside = [loop.inner, *script.around(loop.inner)]
    found = []
    for one in body:
        if any(one is up for up in inside):
            break
        found.append(one)
    return found


def _behind(script: Script, statement: Any) -> list[Any]:
    """Return the statements behind one, in its block."""
    while not is_statement(statement) or script.parent(statement) is None:
        statement = script.parent(statement)
    body = getattr(script.parent(statement), "body", ())
    return list(body[next(number for number, one in enumerate(body) if one is statement) + 1 :])


def refuse_what_is_out_of_reach(script: Script, walk: Walk, top: Any) -> None:
    """Raise UnclearError for a group that a new optimizer lacks, and for files that the end needs."""
    cst: Any = libcst_or_error()
    for on, method, call in walk.calls:
        if method == "add_param_group":
            raise UnclearError(
                f"line {script.line(call)} adds a group to {on} within the loop, which a new start's optimizer "
                "hasn't got"
            )
    saved = {
        script.code(call.args[1].value)
        for call in script.all(cst.Call, top)
        if script.path(call.func) == "torch.save" and len(call.args) > 1
    }
    for call in script.all(cst.Call):
        behind = script.span(call)[0] > script.span(top)[1]
        loads = behind and script.path(call.func) == "torch.load" and bool(call.args)
        if loads and script.code(call.args[0].value) in saved:
            raise UnclearError(
                f"line {script.line(call)} loads behind the loop what the loop has written to "
                f"{script.code(call.args[0].value)}, a file that isn't in the vault: keep it in a variable"
            )
