"""State that functions keep where no variable of the loop leads: closures, defaults, caches, parts of a model.

A checkpoint can't bring it back, so such a loop is left alone, with the reason.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, function_of
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.named_values import CONTAINERS
from vaultlayer_hf.run.insert.own_classes import GROWS
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.random_calls import is_draw
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk, local_names

_CACHE = re.compile(r"(?:^|\.)(?:lru_cache|cache|cached_property|memoize)$")
OF_PARTS = ("p", "momentum", "eps", "dropout", "inplace", "num_heads", "stride", "padding")
"""Attributes of torch's layers that decide what they give, and that no ``state_dict()`` has."""
_NEW_PARTS = re.compile(r"(?:^|\.)nn\.utils\.(?:prune|parametrize|parametrizations)\.(?!is_)\w+$")
_PARTS = re.compile(r"\.(?:modules|children|named_modules|named_children)\(\)")


def refuse_out_of_sight(script: Script, loop: Loop, models: list[str]) -> None:
    """Raise UnclearError where a function that the loop runs keeps what a checkpoint doesn't find.

    ``models``: names of the modules that are saved.
    """
    used = run_by(script, loop)
    _refuse_closures(script, loop, used)
    _refuse_partials(script, used)
    _refuse_defaults(script, used)
    _refuse_caches(script, used)
    _refuse_changed_parts(script, used, models)
    _refuse_new_parameters(script, used)


def run_by(script: Script, loop: Loop) -> list[Any]:
    """Return the loop and the functions that it calls, one through the other; methods by their names alone."""
    around = list(script.around(loop.top))
    functions = [one for one in script.all(cst.FunctionDef) if not any(one is up for up in around)]
    found: list[Any] = [loop.top]
    for part in found:
        for call in script.all(cst.Call, part):
            _, dot, name = dotted(call.func).rpartition(".")
            for one in functions:
                method = isinstance(script.parent(script.parent(one)), cst.ClassDef)
                called = one.name.value == name and method == bool(dot) and not any(one is it for it in found)
                if called:
                    found.append(one)
    return found


def refuse_held_elsewhere(script: Script, loop: Loop, walk: Walk, kept: list[str]) -> None:
    """Raise UnclearError for a tensor or an array that the loop changes in place, and that a data set holds, too.

    ``walk``: of the loop; ``kept``: names that come back as values, which gives the loop one of its own.
    """
    for call in script.all(cst.Call):
        path = script.path(call.func)
        if script.span(call)[0] > script.span(loop.top)[0] or not path.rpartition(".")[2][:1].isupper():
            continue
        for one in call.args:
            name = dotted(one.value)
            if name in kept and name in walk.changed and name not in walk.written:
                raise UnclearError(
                    f"line {walk.changed[name]} changes {name} in place, which the {path.rpartition('.')[2]} of line "
                    f"{script.line(call)} holds, too: a resume would give the loop one of its own"
                )


def _refuse_closures(script: Script, loop: Loop, used: list[Any]) -> None:
    """A function that another one has made keeps that one's variables: ``tick = make_counter()``."""
    around = [one for one in script.around(loop.top) if isinstance(one, cst.FunctionDef)]
    around += [call.function for call in loop.calls]
    read = {one.value for part in used for one in script.all(cst.Name, part)}
    for inner in script.all(cst.FunctionDef):
        owner = function_of(script, inner)
        if owner is None or any(owner is one for one in around):
            continue  # a variable of the loop's own function has a name where its Checkpointer is made
        made = {
            name.value
            for node in assignments(script)
            if any(dotted(call.func) == owner.name.value for call in script.all(cst.Call, node.value))
            and not any(up is loop.top for up in script.around(node.node))
            for target in node.targets
            for name in script.all(cst.Name, target)
        }
        decorates = any(
            dotted(getattr(one.decorator, "func", one.decorator)) == owner.name.value
            for part in used
            for one in getattr(part, "decorators", ())
        )
        if not (made & read or decorates):
            continue
        own = local_names(script, owner) | parameters_of(owner)
        for name, line in _changed_outside(script, inner).items():
            if name in own:
                raise UnclearError(
                    f"line {line} changes {name}, which {inner.name.value}() keeps of {owner.name.value}(), where a "
                    "checkpoint doesn't find it: make it an attribute of an object"
                )


def _changed_outside(script: Script, function: Any) -> dict[str, int]:
    """Return the names from outside of a function that it changes, and the lines."""
    walk = Walk(script, follow=False)
    walk.suite(function.body)
    shared = {
        item.name.value
        for kind in (cst.Global, cst.Nonlocal)
        for one in script.all(kind, function.body)
        for item in one.names
    }
    own = (parameters_of(function) | local_names(script, function)) - shared
    found = {name: line for name, line in walk.written.items() if name in shared}
    return found | {name: line for name, line in _in_place(script, function).items() if name not in own}


def _refuse_partials(script: Script, used: list[Any]) -> None:
    """``rate = partial(decay, seen)``: the object that it holds is the one from before."""
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    read = {one.value for part in used for one in script.all(cst.Name, part)}
    for node in assignments(script):
        value, names = node.value, {dotted(one) for one in node.targets}
        partial = (
            isinstance(value, cst.Call) and script.path(value.func) == "functools.partial" and value.args
        )
        function = functions.get(dotted(value.args[0].value)) if partial else None
        if function is None or not names & read:
            continue
        for name, line in _in_place(script, function).items():
            if name in parameters_of(function):
                raise UnclearError(
                    f"line {line} changes {name}, which {sorted(names & read)[0]} holds as a partial of "
                    f"{function.name.value}(), where a checkpoint doesn't find it"
                )


def _in_place(script: Script, function: Any) -> dict[str, int]:
    """Return the names that a function changes in place, and the lines."""
    walk = Walk(script, follow=False)
    walk.suite(function.body)
    changed = dict(walk.changed)
    for on, method, call in walk.calls:
        if GROWS.fullmatch(method):
            changed.setdefault(on, script.line(call))
    return changed


def _refuse_defaults(script: Script, used: list[Any]) -> None:
    """``def smooth(value, memory=[])``: the default is one list for all calls."""
    for part in used:
        if not isinstance(part, cst.FunctionDef):
            continue
        changed = _in_place(script, part)
        for one in (*part.params.params, *part.params.kwonly_params):
            kinds = (cst.List, cst.Dict, cst.Set)
            made = isinstance(one.default, cst.Call) and script.path(one.default.func) in CONTAINERS
            if one.name.value in changed and (made or isinstance(one.default, kinds)):
                raise UnclearError(
                    f"line {changed[one.name.value]} changes {one.name.value}, a default of {part.name.value}() that "
                    "all its calls share, where a checkpoint doesn't find it"
                )


def _refuse_caches(script: Script, used: list[Any]) -> None:
    """What a cached function has drawn stays in its cache."""
    for part in used:
        for one in getattr(part, "decorators", ()):
            path = script.path(getattr(one.decorator, "func", one.decorator))
            drawn = [call for call in script.all(cst.Call, part.body) if is_draw(script.path(call.func))]
            if _CACHE.search(path) and drawn:
                raise UnclearError(
                    f"line {script.line(drawn[0])} draws what {part.name.value}() keeps in its cache, where a "
                    "checkpoint doesn't find it"
                )


def _refuse_changed_parts(script: Script, used: list[Any], models: list[str]) -> None:
    """``model[3].p = 0.1``: a part of the model without a name, and what no state_dict() has of it."""
    kinds = (cst.AssignTarget, cst.AugAssign)
    for target in [node.target for part in used for kind in kinds for node in script.all(kind, part)]:
        if not isinstance(target, cst.Attribute) or target.attr.value not in OF_PARTS:
            continue
        if (not dotted(target) and _root(target) in models) or _is_member(script, target):
            raise UnclearError(
                f"line {script.line(target)} changes {script.code(target)} within the loop, and no state_dict() has "
                "it: a resume would go on with the one from before the loop"
            )


def _refuse_new_parameters(script: Script, used: list[Any]) -> None:
    """``prune.l1_unstructured(model.head, "weight", 0.5)``: the model of a new start has no ``weight_orig``."""
    for part in used:
        for call in script.all(cst.Call, part):
            if _NEW_PARTS.search(script.path(call.func)):
                raise UnclearError(
                    f"line {script.line(call)} gives a part of the model other parameters within the loop, which the "
                    "model of a new start hasn't got"
                )


def _root(node: Any) -> str:
    while type(node).__name__ in ("Attribute", "Subscript"):
        node = node.value
    return dotted(node)


def _is_member(script: Script, target: Any) -> bool:
    """Tell whether what is assigned to is an attribute of the variable of a loop through a module's parts."""
    name = dotted(target.value)
    return any(
        isinstance(one, cst.For)
        and name in {each.value for each in script.all(cst.Name, one.target)}
        and bool(_PARTS.search(script.code(one.iter)))
        for one in script.around(target)
    )
