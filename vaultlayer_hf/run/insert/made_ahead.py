"""Values that an epoch makes ahead of its batches of what these change: a resume within it would make others.

Of weights, options and schedules, of a counter, of an object or a generator that moves on; where ``while`` counts the
epochs, of random numbers, too. They are brought back right ahead of the batches.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.ahead_of_batches import functions_led_to, known_at_top, own_names
from vaultlayer_hf.run.insert.calls import Assignment, assignments
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.random_calls import is_draw
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

_SHOWS = re.compile(
    r"(?:^|\.)(?:list|tuple|set|dict|iter|filter|zip|enumerate|len|hasattr|getattr|isinstance|unwrap_model|"
    r"(?:named_)?(?:parameters|modules|children|buffers)|state_dict|items|keys|values|detach|train|eval|to|cuda)$"
)
"""Calls that give a module, or its own tensors: what these become is seen in what is given."""
_PLAIN = re.compile(r"^(?:(?:torch|numpy)\.[a-z_]+|list|tuple|range|len|sorted|int|reversed)$")
"""Calls whose value can be kept."""


def made_ahead(script: Script, loop: Loop, names: Names, moving: Collection[str]) -> list[str]:
    """Return what an epoch makes of what changes in it ahead of its batches, and that these or the code behind read.

    ``moving``: variables and objects that the batches change. Raises UnclearError where these are the data.
    """
    statements = [*ahead(script, loop), *ahead_within(script, loop)]
    models = _models(script, loop, names)
    of_others = {*own_names(script, loop, names), *moving}
    draws = _draws(script, loop, statements) if isinstance(loop.outer, cst.While) else []
    found: dict[str, Assignment] = {}
    for node in [one for statement in statements for one in assignments(script, statement)]:
        tests = [up.test for up in script.around(node.node) if isinstance(up, cst.If)]
        tests = [one for one in tests if any(up in statements for up in script.around(one))]
        of_weights = any(
            _read(script, one) & models and _makes_values(script, one) for one in [node.value, *tests]
        )
        read = {name for one in [node.value, *tests] for name in _read(script, one, of_others)}
        drawn = any(any(up is node.value for up in [one, *script.around(one)]) for one in draws)
        if of_weights or drawn or read & {*of_others, *found}:
            found |= dict.fromkeys([name for one in node.targets for name in _names_in(script, one)], node)
    _refuse_data(script, loop, found, models, moving)
    behind = script.span(loop.inner)[1]
    later = {one.value for one in script.all(cst.Name, loop.inner)}
    later |= {one.value for one in script.all(cst.Name, loop.outer) if script.span(one)[0] > behind}
    return [name for name in found if name in later or "." in name]


def _models(script: Script, loop: Loop, names: Names) -> set[str]:
    inner = loop.calls[loop.crossed :]
    found = set(names.models)
    if inner:
        found |= {
            name
            for name in parameters_of(inner[0].function)
            if known_at_top(script, loop, name) in names.models
        }
    return found


def _names_in(script: Script, target: Any) -> list[str]:
    """Return what an assignment binds, names and attributes."""
    if dotted(target):
        return [dotted(target)]
    if isinstance(target, (cst.Tuple, cst.List)):
        return [name for one in target.elements for name in _names_in(script, one.value)]
    return []


def _read(script: Script, value: Any, held: Collection[str] = ()) -> set[str]:
    """Return what a value is made of, in functions of the script's own that it calls, too.

    ``held``: objects that a loader is only given: it goes by what they are then.
    """
    if isinstance(value, cst.Call) and script.path(value.func).endswith("DataLoader"):
        parts = [one.value for one in value.args if dotted(one.value) not in held]
    else:
        parts = [value]
    walk = Walk(script)
    for one in parts:
        walk.expression(one)
    return set(walk.read_first)


def _makes_values(script: Script, value: Any) -> bool:
    """Tell whether a value is made by a call that doesn't only show what it is given."""
    return any(not _SHOWS.search(script.code(call.func)) for call in script.all(cst.Call, value))


def _draws(script: Script, loop: Loop, statements: list[Any]) -> list[Any]:
    """Return the calls that draw random numbers ahead of the batches, themselves or through a function.

    Raises UnclearError for one whose value goes nowhere: it changes something.
    """
    drawing = [
        one
        for one in functions_led_to(script, loop, statements)
        if any(is_draw(script.path(call.func)) for call in script.all(cst.Call, one))
    ]
    names = {one.name.value for one in drawing}
    found = []
    for call in [one for statement in statements for one in script.all(cst.Call, statement)]:
        if is_draw(script.path(call.func)) or script.code(call.func).rpartition(".")[2] in names:
            if not any(isinstance(up, (cst.Assign, cst.AnnAssign)) for up in script.around(call)):
                raise UnclearError(
                    f"line {script.line(call)} draws random numbers ahead of an epoch's batches, and where a resume "
                    "goes on within the epoch, a while loop draws others: count the epochs by for"
                )
            found.append(call)
    return found


def _refuse_data(
    script: Script, loop: Loop, found: dict[str, Assignment], models: set[str], moving: Collection[str]
) -> None:
    """Raise UnclearError where the batches are made of what changes in the epoch; plain values come back."""
    data = script.all(cst.Name, loop.inner.iter) if isinstance(loop.inner, cst.For) else []
    for name in [one.value for one in data if one.value in found]:
        value = found[name].value
        calls = script.all(cst.Call, value)
        plain = all(
            _PLAIN.match(script.path(call.func)) or script.code(call.func).rpartition(".")[0] in moving
            for call in calls
        )
        what = "the weights that it begins with"
        if not _read(script, value) & models:
            changed = sorted(_read(script, value) & {*moving, *found})
            what = f"{changed[0]} as it begins" if changed else "what it begins with"
            if plain:
                continue
        raise UnclearError(
            f"line {script.line(loop.inner)} goes through {name}, which the epoch makes of {what}, and a resume within "
            "it hasn't got those"
        )
