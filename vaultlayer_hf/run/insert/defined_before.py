"""Which names are set where a statement of a script begins: surely, or at all."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script
from vaultlayer_hf.run.insert.walk import Walk


def defined_before(script: Script, node: Any) -> set[str]:
    """Return the names that are surely set where a statement begins: of its function, its parameters, its module."""
    path = [node, *script.around(node)]
    found: set[str] = set()
    for position, one in enumerate(path):
        body: Any = getattr(one, "body", ())
        if isinstance(one, (cst.IndentedBlock, cst.Module)):
            walk = Walk(script, follow=False, proves=True)
            inside = path[position - 1]
            module_of_function = isinstance(one, cst.Module) and isinstance(
                inside, (cst.FunctionDef, cst.ClassDef)
            )
            for statement in body:
                if statement is inside and not module_of_function:
                    break
                walk.statement(statement)
            found |= walk.defined
        elif isinstance(one, cst.FunctionDef):
            found |= parameters_of(one) | {one.name.value}
        elif isinstance(one, (cst.For, cst.With)) and position:
            walk = Walk(script, follow=False, proves=True)
            if isinstance(one, cst.For):
                walk.target(one.target)
            else:
                for item in one.items:
                    if item.asname is not None:
                        walk.target(item.asname.name)
            found |= walk.defined
    for one in script.all(cst.ClassDef) + script.all(cst.FunctionDef):
        if script.parent(one) is script.module:
            found.add(one.name.value)
    return found | set(script.imports)


def is_known(script: Script, name: str, at: Any) -> bool:
    """Tell whether a variable is set, or a parameter, in one of the functions around a node, or in the module."""
    first = name.partition(".")[0]
    for one in script.around(at):
        if isinstance(one, cst.FunctionDef) and first in parameters_of(one):
            return True
        if isinstance(one, (cst.FunctionDef, cst.Module)):
            walk = Walk(script, follow=False)
            walk.suite(one.body)
            if first in walk.written:
                return True
    return first in script.imports
