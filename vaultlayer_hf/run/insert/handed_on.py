"""Generators of a script's own that hand on a loader's batches one by one, and log on their way.

    for x, y in metric_logger.log_every(loader, 10, header):

Such a one is seen through: it goes through what is left of the loader, as it would go through all of it.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import is_method
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.random_calls import is_draw
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk


def handed_on(script: Script, call: Any) -> Any:
    """Return what a call of such a generator goes through; None for any other call."""
    name = dotted(call.func)
    functions = [one for one in script.all(cst.FunctionDef) if one.name.value == name.rpartition(".")[2]]
    if len(functions) != 1 or is_method(script, functions[0]) != ("." in name):
        return None
    function = functions[0]
    loader = _loader_of(script, function)
    if not loader or function.decorators or any(one.star for one in call.args):
        return None
    listed = [one.name.value for one in (*function.params.posonly_params, *function.params.params)]
    if is_method(script, function):
        listed = listed[1:]
    given = {one.keyword.value: one.value for one in call.args if one.keyword is not None}
    placed = [one.value for one in call.args if one.keyword is None]
    given |= dict(zip(listed, placed, strict=False))
    return given.get(loader)


def _loader_of(script: Script, function: Any) -> str:
    """Return the parameter that a generator goes through and hands on; ``""`` where it does anything else."""
    yields = script.all(cst.Yield, function.body, nested=False)
    loops = [*script.all(cst.For, function.body), *script.all(cst.While, function.body)]
    if len(yields) != 1 or len(loops) != 1 or not isinstance(loops[0], cst.For):
        return ""
    head = loops[0]
    source, target = head.iter, head.target
    if isinstance(source, cst.Call) and dotted(source.func) == "enumerate" and isinstance(target, cst.Tuple):
        source, target = source.args[0].value, target.elements[-1].value
    whole = dotted(target) != "" and dotted(yields[0].value) == dotted(target)
    inside = any(one is head for one in script.around(yields[0]))
    leaves = [one for kind in (cst.Break, cst.Continue, cst.Return) for one in script.all(kind, head)]
    conditional = any(isinstance(one, (cst.If, cst.Try)) for one in script.around(yields[0]))
    name = dotted(source)
    if name not in parameters_of(function) or not whole or not inside or leaves or conditional:
        return ""
    if re.search(rf"/\s*(?:float\(|max\(1, )?len\({name}\)", script.code(function)):
        return ""  # of a pass that nothing is left of, the number is 0
    walk = Walk(script, follow=False)
    walk.suite(function.body)
    lasting = [one for one in (*walk.written, *walk.changed) if one.startswith("self.")]
    shared = [*script.all(cst.Global, function.body), *script.all(cst.Nonlocal, function.body)]
    draws = [call for call in script.all(cst.Call, function.body) if is_draw(script.path(call.func))]
    own = {one.name.value for one in script.all(cst.FunctionDef)}
    calls_own = [method for on, method, _ in walk.calls if on.startswith("self") and method in own]
    return "" if lasting or shared or draws or calls_own else name
