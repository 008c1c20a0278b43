"""A loop that is spread over functions: those on the way get the Checkpointer as an argument."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import is_method
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Edit, Script


def pass_down(script: Script, loop: Loop, ckpt: str) -> list[Edit]:
    """Return the edits that give the Checkpointer to the functions between the two loops."""
    edits = []
    for call in loop.calls[loop.crossed :]:
        if is_method(script, call.function):
            continue
        why = f"{call.function.name.value}() gets the Checkpointer."
        edits.append(parameter_edit(script, ckpt, call.function, why))
        edits.append(argument_edit(script, ckpt, ckpt, call.call, why))
    return edits


def argument_edit(script: Script, name: str, value: str, call: Any, why: str) -> Edit:
    """Return the edit that gives a call one more argument, by its name."""
    last = call.args[-1] if call.args else None
    at = script.span(last.value)[1] if last is not None else script.span(call)[1] - 1
    return Edit(at, at, f"{', ' if last is not None else ''}{name}={value}", why)


def parameter_edit(script: Script, added: str, function: Any, why: str) -> Edit:
    """Return the edit that gives a function one more parameter, ``added``, which is given by its name."""
    parameters = function.params
    if parameters.star_kwarg is not None:
        at = script.text.rindex("**", 0, script.span(parameters.star_kwarg.name)[0])
        text = f"{added}, " if _has_star(function) else f"*, {added}, "
        return Edit(at, at, text, why)
    listed = [*parameters.posonly_params, *parameters.params, *parameters.kwonly_params]
    if isinstance(parameters.star_arg, cst.Param):
        listed.append(parameters.star_arg)
    star = "" if _has_star(function) else "*, "
    if not listed:
        at = script.text.index("(", script.span(function.name)[1]) + 1
        return Edit(at, at, f"{star}{added}", why)
    at = max(_end_of_parameter(script, one) for one in listed)
    return Edit(at, at, f", {star}{added}", why)


def _end_of_parameter(script: Script, parameter: Any) -> int:
    parts = [parameter.name, parameter.annotation, parameter.default]
    return max(script.span(one)[1] for one in parts if one is not None)


def _has_star(function: Any) -> bool:
    return not isinstance(function.params.star_arg, cst.MaybeSentinel)
