"""Lists, dicts and objects that the caller of the loop's function holds, too: they come back as the same objects.

To assign what was saved would give the function an object of its own, and its caller would see nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of, given_values
from vaultlayer_hf.run.insert.calls import call_that_makes, function_of, sources_of
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.named_values import CONTAINERS, LOGS, NamedValues
from vaultlayer_hf.run.insert.own_classes import GROWS, changes_itself
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import dotted
from vaultlayer_hf.run.insert.walk import Walk, local_names


@dataclass
class Given:
    """What a loop changes in place of its function's parameters.

    Attributes:
        containers: lists, dicts and the like, whose contents come back.
        objects: of classes of the script's own.
    """

    containers: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)


def given_to_loop(named: NamedValues, walk: Walk) -> Given:
    """Return what a loop changes of what its function was given; ``walk``: of the loop. Raises UnclearError."""
    script = named.script
    home = function_of(script, named.loop.top)
    found = Given()
    if home is None:
        return found
    own = local_names(script, home)
    parameters = parameters_of(home) - own - named.known - set(named.names.models) - {"self"}
    for name in sorted(parameters):
        line = walk.changed.get(name, 0)
        calls = [(method, call) for on, method, call in walk.calls if on == name]
        grows = [call for method, call in calls if GROWS.fullmatch(method)]
        values = _values(named, home, name)
        kinds = {_kind(named, value) for value in values}
        if "class" in kinds and any(_changes(named, values, method) for method, _ in calls):
            found.objects.append(name)
        elif line or grows:
            if kinds == {"container"}:
                found.containers.append(name)
            elif kinds & {"container", "tensor"} or "unseen" in kinds:
                raise UnclearError(
                    f"line {line or script.line(grows[0])} changes {name}, which {home.name.value}() was given, and a "
                    "resume would give the loop one of its own, which its caller doesn't see: return it instead"
                )
    return found


def _values(named: NamedValues, home: Any, name: str) -> list[Any]:
    """Return the expressions that make what a function is given for a parameter; its default where it is given none."""
    script = named.script
    found: list[Any] = []
    for value in given_values(script, home, calls_of(script, home), name):
        if value is not None:
            found += (sources_of(script, dotted(value)) if dotted(value) else []) or [value]
    return found


def _kind(named: NamedValues, value: Any) -> str:
    """Return ``container``, ``class`` (of the script's own), ``tensor``, ``log``, ``unseen``; ``""``: another call."""
    if isinstance(value, (cst.List, cst.Dict, cst.Set, cst.ListComp, cst.DictComp, cst.SetComp)):
        return "container"
    value = call_that_makes(value)
    if not isinstance(value, cst.Call):
        return "unseen"
    path = named.script.path(value.func)
    if path in named.classes:
        return "class"
    if path in CONTAINERS:
        return "container"
    if LOGS.search(path):
        return "log"
    return "tensor" if path.startswith(("torch.", "numpy.")) and path.rpartition(".")[2].islower() else ""


def _changes(named: NamedValues, values: list[Any], method: str) -> bool:
    made = [named.script.path(one.func) for one in map(call_that_makes, values) if isinstance(one, cst.Call)]
    return any(
        changes_itself(named.script, named.classes[one], method, named.classes)
        for one in made
        if one in named.classes
    )
