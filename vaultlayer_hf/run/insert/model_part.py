"""Which part of ``a.b.c``, whose parameters an optimizer trains, is saved; and what ``for net in nets`` stands for."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, made_by, method_calls, receiver, sources_of
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.own_classes import classes_of
from vaultlayer_hf.run.insert.seen_names import root
from vaultlayer_hf.run.insert.source import Script, dotted

_PIPELINE = re.compile(r"Pipeline(?:\.from_\w+)?$")
"""What makes a pipeline of diffusers, which holds models and is none."""


def model_part(script: Script, name: str) -> str:
    """Return the longest part of ``a.b.c`` that the script assigns: what holds the rest, with its buffers."""
    parts = name.split(".")
    if parts[0] == "self":
        for number in range(len(parts), 1, -1):
            if _assigned(script, ".".join(parts[:number])):
                return ".".join(parts[:number])
        return name
    return ".".join(parts[:2]) if len(parts) > 1 and _is_no_module(script, parts[0]) else parts[0]


def members_of(script: Script, part: Any, name: str) -> list[str]:
    """Return the modules that a name within some code stands for: of ``[… for net in nets …]`` all in ``nets``.

    Raises UnclearError where they aren't seen.
    """
    first = name.partition(".")[0]
    for one in script.all(cst.CompFor, part):
        if first not in {target.value for target in script.all(cst.Name, one.target)}:
            continue
        over = one.iter
        if isinstance(over, cst.Call) and isinstance(over.func, cst.Attribute) and not over.args:
            over = over.func.value  # nets.values(), model.children()
        members = _listed(script, over)
        if not members:
            raise UnclearError(
                f"line {script.line(part)} takes parameters of {script.code(one.iter)}, and which modules those are "
                "isn't seen"
            )
        return members
    return [name]


def _listed(script: Script, over: Any) -> list[str]:
    """Return the names of the modules that a list, a tuple or a dict holds; that of a module which holds modules."""
    name = root(over)
    values = sources_of(script, name) if name else [over]
    if name and not any(isinstance(one, (cst.List, cst.Tuple, cst.Dict, cst.ListComp)) for one in values):
        return [name]
    if len(values) != 1 or not isinstance(values[0], (cst.List, cst.Tuple, cst.Dict)):
        return []
    grown = [call for way in ("append", "extend", "insert", "update") for call in method_calls(script, way)]
    if name and any(receiver(call) == name for call in grown):
        return []
    found = [dotted(one.value) for one in values[0].elements]
    return found if all(found) else []


def _assigned(script: Script, name: str) -> bool:
    return any(dotted(target) == name for node in assignments(script) for target in node.targets)


def _is_no_module(script: Script, name: str) -> bool:
    """Tell whether an object that holds the model is surely none: a pipeline, or of a class without bases."""
    classes = classes_of(script)
    for path in made_by(script, name):
        if path in classes and all(dotted(base.value) == "object" for base in classes[path][1].bases):
            return True
        if _PIPELINE.search(path):
            return True
    return False
