"""Objects in a list or a dict that a loop changes one by one: callbacks, meters, schedules. Each stays the same object.

for callback in callbacks:        for meter in meters.values():        plans["head"].step()
    callback.on_epoch_end()           meter.update(loss)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of, given_values
from vaultlayer_hf.run.insert.calls import (
    SCHEDULER,
    call_that_makes,
    function_of,
    method_calls,
    receiver,
    sources_of,
)
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within
from vaultlayer_hf.run.insert.named_values import NamedValues
from vaultlayer_hf.run.insert.out_of_sight import run_by
from vaultlayer_hf.run.insert.own_classes import changes_itself, is_kind
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.seen_names import root
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk, local_names

_ANY = "*"
"""In place of a method that is called by a name in a variable."""


@dataclass(frozen=True)
class Members:
    """What a list or a dict holds.

    Attributes:
        name: of the list or dict.
        of_dict: whether it is a dict.
        of_pass: whether each epoch makes it ahead of its batches.
    """

    name: str
    of_dict: bool
    of_pass: bool = False

    def line(self, ckpt: str, *, in_pass: bool = False) -> str:
        """Return the line that keeps each of them."""
        pairs = f"{self.name}.items()" if self.of_dict else f"enumerate({self.name})"
        more = ", in_pass=True" if in_pass else ""
        return f'{ckpt}.carry(lambda: {{f"{self.name}[{{key}}]": one for key, one in {pairs}}}{more})'


@dataclass(frozen=True)
class _Use:
    container: Any
    method: str
    call: Any


def changed_members(named: NamedValues, before: set[str]) -> list[Members]:
    """Return the lists and dicts whose members a loop changes; ``before``: names set ahead. Raises UnclearError."""
    script, loop = named.script, named.loop
    found: dict[str, Members] = {}
    home, of_batches = function_of(script, loop.top), function_of(script, loop.inner)
    made_by_epoch = _made_by_epoch(named, before)
    for use in [one for part in run_by(script, loop) for one in _uses(named, part)]:
        name = root(_bare(use.container))
        if not name or name in named.known or not _changes(named, name, use.method):
            continue
        where = function_of(script, use.call)
        of_pass = where is of_batches and name in made_by_epoch
        if not of_pass and (_is_made_within(named, use, name) or _is_of_object(named, use, name)):
            continue
        here = name.partition(".")[0] == "self" or where is home or of_pass
        values = values_of(named, name)
        listed = all(
            isinstance(one, (cst.List, cst.Tuple, cst.Dict, cst.ListComp, cst.DictComp)) for one in values
        )
        known = of_pass or name.partition(".")[0] in before
        if not here or not listed or not known or not dotted(_bare(use.container)):
            raise UnclearError(
                f"line {script.line(use.call)} changes what {script.code(use.container)} holds by "
                f"{use.method if use.method != _ANY else 'getattr'}(), where a checkpoint doesn't find it"
            )
        of_dict = any(isinstance(one, (cst.Dict, cst.DictComp)) for one in values)
        found[name] = Members(name, of_dict or script.code(use.container) != name, of_pass)
    return list(found.values())


def _made_by_epoch(named: NamedValues, before: set[str]) -> set[str]:
    """Return the names that an epoch surely sets ahead of its batches; ``before``: set ahead of the loop."""
    if named.loop.outer is None:
        return set()
    first = Walk(named.script)
    first.block(ahead(named.script, named.loop))
    first.block(ahead_within(named.script, named.loop))
    return {name for name in first.written if name in first.defined} - before


def _is_made_within(named: NamedValues, use: _Use, name: str) -> bool:
    """Tell whether a function that the loop calls makes a list or dict by itself, with all that is in it.

    ``evaluate()`` begins its meters anew at each call, so no checkpoint needs them.
    """
    script, where = named.script, function_of(named.script, use.call)
    around = [named.loop.top, *(call.function for call in named.loop.calls)]
    if where is None or any(one is where or any(up is where for up in script.around(one)) for one in around):
        return False
    if name in parameters_of(where) or name not in local_names(script, where):
        return False
    made = [one for one in sources_of(script, name) if function_of(script, one) is where]
    held = [member for value in made for member in _held(value)] + [
        call.args[0].value
        for call in method_calls(script, "append", where.body)
        if receiver(call) == name and call.args
    ]
    own = local_names(script, where)
    return all(not dotted(one) or (dotted(one) in own and _makes_object(script, where, one)) for one in held)


def _makes_object(script: Script, where: Any, name: Any) -> bool:
    """Tell whether a function makes what a name of its own holds, and doesn't take it from elsewhere."""
    values = [one for one in sources_of(script, dotted(name)) if function_of(script, one) is where]
    return bool(values) and all(isinstance(one, cst.Call) for one in values)


def _is_of_object(named: NamedValues, use: _Use, name: str) -> bool:
    """Tell whether a method of another class than the loop's changes what its object holds, and is seen to do so.

    The object is kept as a whole then, by whoever of the loop holds it.
    """
    script = named.script
    if not name.startswith("self."):
        return False
    method = function_of(script, use.call)
    home = next((one for one in script.around(use.call) if isinstance(one, cst.ClassDef)), None)
    if method is None or home is None or any(up is home for up in script.around(named.loop.top)):
        return False
    return changes_itself(script, (script, home), method.name.value, named.classes)


def changed_ahead(named: NamedValues, statements: list[Any], members: list[Members]) -> list[Members]:
    """Return those of these whose members some statements change."""
    uses = [use for one in statements for use in _uses(named, one)]
    names = {
        root(_bare(one.container)) for one in uses if _changes(named, root(_bare(one.container)), one.method)
    }
    return [one for one in members if one.name in names]


def _bare(node: Any) -> Any:
    """Return ``meters`` of ``meters.values()`` and of ``meters.items()``."""
    method = isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and not node.args
    return node.func.value if method else node


def _uses(named: NamedValues, part: Any) -> list[_Use]:
    """Return the calls of methods of what a list or dict holds, by a loop through it or by its place."""
    script = named.script
    found = []
    rounds = [(one.target, one.iter, one.body) for one in script.all(cst.For, part)]
    comprehensions = script.all((cst.ListComp, cst.SetComp, cst.GeneratorExp), part)
    rounds += [(one.for_in.target, one.for_in.iter, one.elt) for one in comprehensions]
    for target, over, body in rounds:
        if (
            isinstance(over, cst.Call)
            and dotted(over.func) in ("enumerate", "list", "reversed")
            and over.args
        ):
            over = over.args[0].value
        names = {one.value for one in script.all(cst.Name, target)}
        for call in script.all(cst.Call, body):
            if isinstance(call.func, cst.Attribute) and receiver(call) in names:
                found.append(_Use(over, call.func.attr.value, call))
            elif _calls_by_name(call) in names:
                found.append(_Use(over, _ANY, call))
    for call in script.all(cst.Call, part):
        if isinstance(call.func, cst.Attribute) and isinstance(call.func.value, cst.Subscript):
            found.append(_Use(call.func.value.value, call.func.attr.value, call))
    return found


def _calls_by_name(call: Any) -> str:
    """Return ``callback`` of ``getattr(callback, event)(trainer)``; else ``""``."""
    looked = call.func
    by_name = isinstance(looked, cst.Call) and dotted(looked.func) == "getattr" and looked.args
    return dotted(looked.args[0].value) if by_name else ""


def _changes(named: NamedValues, name: str, method: str) -> bool:
    """Tell whether a method changes what a list or dict holds: objects of the script's own classes, schedules."""
    script, classes = named.script, named.classes
    made = [script.path(one.func) for one in _members(named, name) if isinstance(one, cst.Call)]
    kinds = [classes[one] for one in made if one in classes]
    if not made and not any(isinstance(one, cst.Call) for one in values_of(named, name)):
        kinds = [one for one in classes.values() if method in (_ANY, *_methods(one))]  # any may be in it
    kinds = [one for one in kinds if not is_kind(script, one, "Module", classes)]
    if method == "step" and any("lr_scheduler" in one or SCHEDULER.search(one) for one in made):
        return True
    return any(
        changes_itself(script, kind, one, classes)
        for kind in kinds
        for one in (_methods(kind) - {"__init__"} if method == _ANY else {method})
    )


def _methods(kind: Any) -> set[str]:
    home, node = kind
    return {one.name.value for one in home.all(cst.FunctionDef, node)}


def values_of(named: NamedValues, name: str) -> list[Any]:
    """Return what a name is assigned, and what the names are that it is assigned."""
    script = named.script
    found: list[Any] = []
    coming = list(named.sources(name)) or _given(named, name, function_of(script, named.loop.top))
    for one in coming:
        if isinstance(one, cst.BooleanOperation):  # callbacks or []
            coming += [one.left, one.right]
            continue
        further = named.sources(dotted(one)) if dotted(one) else []
        further = further or (_given(named, dotted(one), function_of(script, one)) if dotted(one) else [])
        if further and not any(one is each for each in further):
            found += further
        else:
            found.append(one)
    return found


def _given(named: NamedValues, name: str, function: Any) -> list[Any]:
    """Return what calls of a function give it for a parameter; of ``__init__()`` those that make an object."""
    script = named.script
    if function is None or name not in parameters_of(function):
        return []
    calls = calls_of(script, function)
    if function.name.value == "__init__":
        home = next((one for one in script.around(function) if isinstance(one, cst.ClassDef)), None)
        calls = [
            call for call in script.all(cst.Call) if home is not None and dotted(call.func) == home.name.value
        ]
    return [one for one in given_values(script, function, calls, name) if one is not None]


def _members(named: NamedValues, name: str) -> list[Any]:
    """Return what makes the members of a list or dict, as far as it is seen."""
    found = []
    for value in values_of(named, name):
        found += _held(value)
    for call in method_calls(named.script, "append"):
        if receiver(call) == name and call.args:
            found.append(call.args[0].value)
    named_ones = [source for one in found if dotted(one) for source in named.sources(dotted(one))]
    return [call_that_makes(one) for one in [*found, *named_ones]]


def _held(value: Any) -> list[Any]:
    """Return what a list, tuple or dict is made with."""
    if isinstance(value, (cst.List, cst.Tuple, cst.Dict)):
        return [one.value for one in value.elements]
    if isinstance(value, cst.ListComp):
        return [value.elt]
    return [value.value] if isinstance(value, cst.DictComp) else []
