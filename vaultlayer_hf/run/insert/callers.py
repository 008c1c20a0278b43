"""Who calls a function of a script's own, and how often."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import is_method, made_by, method_calls, receiver
from vaultlayer_hf.run.insert.source import Script, dotted


def calls_of(script: Script, function: Any) -> list[Any]:
    """Return the calls of a function of the script's own; of a method those on ``self``, or on objects of its class."""
    found = _all_calls_of(script, function)
    found = [call for call in found if not _never_made(script, call)] or found
    first = [call for call in found if not _in_handler(script, call)]
    # What an error begins again, such as too little memory, is the same.
    return first if len(first) == 1 else found


def _never_made(script: Script, call: Any) -> bool:
    """Tell whether a call is in a function that nothing in the script so much as names: others import it."""
    home = next((one for one in script.around(call) if isinstance(one, cst.FunctionDef)), None)
    if home is None or home.decorators or not is_plain(script, home) or is_method(script, home):
        return False
    name = home.name.value
    named = [one for one in script.all(cst.Name) if one.value == name and one is not home.name]
    named = [one for one in named if getattr(script.parent(one), "attr", None) is not one]
    return not any(not any(up is home for up in script.around(one)) for one in named)


def _in_handler(script: Script, node: Any) -> bool:
    """Tell whether something is done because of an error."""
    return any(isinstance(one, cst.ExceptHandler) for one in script.around(node))


def _all_calls_of(script: Script, function: Any) -> list[Any]:
    name = function.name.value
    home = next((one for one in script.around(function) if isinstance(one, cst.ClassDef)), None)
    if home is None:
        return [call for call in script.all(cst.Call) if dotted(call.func) == name]
    return [
        call
        for call in method_calls(script, name)
        if (receiver(call) == "self" and any(one is home for one in script.around(call)))
        or home.name.value in made_by(script, receiver(call))
        or (isinstance(call.func.value, cst.Call) and dotted(call.func.value.func) == home.name.value)
    ]


def is_plain(script: Script, function: Any) -> bool:
    """Tell whether a function is one of the module, or a method of a class of the module."""
    homes = [one for one in script.around(function) if isinstance(one, (cst.ClassDef, cst.FunctionDef))]
    return not homes or (len(homes) == 1 and is_method(script, function))


def is_started(script: Script, function: Any) -> bool:
    """Tell whether something in the script starts a function: by its name (``spawn(main, …)``), or a decorator."""
    name, method = function.name.value, is_method(script, function)

    def leads_to(node: Any) -> bool:
        up = script.parent(node)
        if isinstance(up, cst.Attribute) and up.attr is node:
            return method and not re.search(r"model|net|^self$", dotted(up.value))  # model.train() is another
        is_name = isinstance(up, (cst.Param, cst.FunctionDef)) or (
            isinstance(up, cst.Arg) and up.keyword is node
        )
        return not method and not is_name

    named = [one for one in script.all(cst.Name) if one.value == name and leads_to(one)]
    return bool(function.decorators) or any(
        not any(up is function for up in script.around(one)) for one in named
    )


_REPEATS = re.compile(
    r"(?:^|\.)(?:optimize|agent|fmin|\w*minimize|i?map|imap_unordered|starmap|Tuner|timeit|repeat)$|(?:^|\.)tune\.run$"
)
"""What calls a function that it is given as often as it likes: searches for hyperparameters, pools."""


def repeated_by(script: Script, function: Any) -> Any:
    """Return the call that is given a function by its name, and calls it again and again; None for none."""
    for call in script.all(cst.Call):
        given = any(dotted(one.value) == function.name.value for one in call.args)
        method = f".{call.func.attr.value}" if isinstance(call.func, cst.Attribute) else ""
        if given and _REPEATS.search(script.path(call.func) or method):
            return call
    return None


def is_made_once(script: Script, calls: list[Any]) -> bool:
    """Tell whether at most one of some calls is made: of two, one in each branch of an ``if``."""
    if len(calls) != 2:
        return len(calls) < 2
    one, other = ([call, *script.around(call)] for call in calls)
    choice = next((up for up in one if isinstance(up, cst.If) and any(up is to for to in other)), None)
    if choice is None or choice.orelse is None:
        return False
    first = [any(up is choice.body for up in path) for path in (one, other)]
    second = [any(up is choice.orelse for up in path) for path in (one, other)]
    return sorted(first) == sorted(second) == [False, True]


def given_values(script: Script, function: Any, calls: list[Any], name: str) -> list[Any]:
    """Return what calls of a function give it for a parameter: its default where they give none, else None."""
    parameters = function.params
    listed = [*parameters.posonly_params, *parameters.params, *parameters.kwonly_params]
    placed = [one.name.value for one in (*parameters.posonly_params, *parameters.params)]
    if placed[:1] == ["self"] and is_method(script, function):
        placed = placed[1:]
    default = next((one.default for one in listed if one.name.value == name), None)
    found = []
    for call in calls:
        given = {one.keyword.value: one.value for one in call.args if one.keyword is not None}
        by_place = [one.value for one in call.args if one.keyword is None and not one.star]
        given |= zip(placed, by_place, strict=False)
        found.append(given.get(name, default))
    return found
