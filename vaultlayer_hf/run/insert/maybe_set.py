"""Names that a script sets only under a condition ahead of its loop: an edit sets them to None first.

Then they can be named where the Checkpointer is made, whichever way the condition went: what is None isn't saved.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import Edit, Script, dotted
from vaultlayer_hf.run.insert.walk import Walk

_ERRORS = {"NameError", "UnboundLocalError"}
"""What tells a script that a name isn't set."""


def maybe_set(script: Script, node: Any) -> dict[str, Any]:
    """Return the names that may be set where a statement begins, each with the statement that sets it first.

    Of its function, those around it, and the module; none where the script itself asks which names are set.
    """
    if _asks(script):
        return {}
    path = [node, *script.around(node)]
    found: dict[str, Any] = {}
    certain = set_ahead(script, node)
    for position, one in enumerate(path):
        if not isinstance(one, (cst.IndentedBlock, cst.Module)):
            continue
        inside = path[position - 1]
        of_module = isinstance(one, cst.Module) and isinstance(inside, (cst.FunctionDef, cst.ClassDef))
        for statement in one.body:
            if statement is inside and not of_module:
                break
            if isinstance(statement, (cst.If, cst.Try, cst.For, cst.While)):
                walk = Walk(script, follow=False)
                walk.statement(statement)
                for name in walk.written:
                    if name.isidentifier() and name not in certain:
                        found.setdefault(name, statement)
    return found


def _asks(script: Script) -> bool:
    """Tell whether a script asks which names are set at all: ``vars(options)`` tells of an object alone."""
    return bool(script.names & _ERRORS) or any(
        dotted(call.func) in ("locals", "globals") or (dotted(call.func) == "vars" and not call.args)
        for call in script.all(cst.Call)
    )


def set_ahead(script: Script, node: Any) -> set[str]:
    """Return the names that are set ahead of a statement, under no condition; ``del`` may have taken them since."""
    path = [node, *script.around(node)]
    walk = Walk(script, follow=False)
    for position, one in enumerate(path):
        body = one.body if isinstance(one, (cst.IndentedBlock, cst.Module)) else ()
        for statement in body:
            if statement is path[position - 1]:
                break
            if isinstance(statement, cst.SimpleStatementLine):
                walk.statement(statement)
    return set(walk.written)


def set_first(script: Script, names: list[str], where: dict[str, Any]) -> list[Edit]:
    """Return the edits that set names to None ahead of the statements that ``maybe_set`` tells of."""
    statements: dict[int, tuple[Any, list[str]]] = {}
    for name in dict.fromkeys(names):
        statement = where[name]
        statements.setdefault(id(statement), (statement, []))[1].append(name)
    return [
        script.lines_before(
            statement,
            [f"{name} = None" for name in together],
            f"What isn't made isn't saved: {', '.join(together)}.",
        )
        for statement, together in statements.values()
    ]
