"""Which names a piece of a script reads and writes, about in the order in which it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import Script, dotted


def is_known(script: Script, name: str, at: Any) -> bool:
    """Tell whether a variable is set, or a parameter, in one of the functions around a node, or in the module."""
    first = name.partition(".")[0]
    for one in [*script.around(at), script.module]:
        if isinstance(one, cst.FunctionDef):
            parameters = script.all(cst.Param, one.params)
            if any(dotted(parameter.name) == first for parameter in parameters):
                return True
        if isinstance(one, (cst.FunctionDef, cst.Module)):
            body = one.body.body if isinstance(one, cst.FunctionDef) else one.body
            if any(writes and found == first for part in body for found, writes, _ in events(part)):
                return True
    return first in script.imports


def events(node: Any) -> Iterator[tuple[str, bool, Any]]:
    """Yield (name, whether it is written, node) about in the order in which they happen; lists grow by append()."""
    if isinstance(node, cst.Name):
        yield node.value, False, node
    elif isinstance(node, cst.Assign):
        yield from events(node.value)
        for target in node.targets:
            yield from written_by(target.target)
    elif isinstance(node, cst.AugAssign):
        yield from events(node.target)
        yield from events(node.value)
        yield from written_by(node.target)
    elif isinstance(node, (cst.For, cst.CompFor)):
        yield from events(node.iter)
        yield from written_by(node.target)
        for child in node.children:
            if child is not node.iter and child is not node.target:
                yield from events(child)
    elif isinstance(node, (cst.ListComp, cst.SetComp, cst.GeneratorExp, cst.DictComp)):
        yield from events(node.for_in)  # its variable is its own
        for child in node.children:
            if child is not node.for_in:
                yield from events(child)
    elif isinstance(node, cst.AsName):
        yield from written_by(node.name)
    elif isinstance(node, (cst.Attribute, cst.Arg)):  # the names in them aren't variables
        yield from events(node.value)
    elif isinstance(node, cst.Call):
        for child in node.children:
            yield from events(child)
        if isinstance(node.func, cst.Attribute) and node.func.attr.value in ("append", "extend"):
            yield from written_by(node.func.value)
    elif not isinstance(node, (cst.Lambda, cst.FunctionDef, cst.ClassDef)):
        for child in node.children:
            yield from events(child)


def written_by(target: Any) -> Iterator[tuple[str, bool, Any]]:
    """Yield the events of an assignment's target."""
    if isinstance(target, cst.Name):
        yield target.value, True, target
    elif isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield from written_by(element.value)
    elif not isinstance(target, cst.Attribute) or dotted(target) == "":
        yield from events(target)
