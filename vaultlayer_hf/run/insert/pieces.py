"""Pieces of code that an edit of a loop reads and writes: arguments, what is looped over, a line of variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import method_calls
from vaultlayer_hf.run.insert.source import Script, dotted


def places(call: Any) -> list[Any]:
    return [one for one in call.args if one.keyword is None and not one.star]


def innermost(node: Any) -> Any:
    """Return what is looped over, without enumerate() and progress bars around it."""
    while isinstance(node, cst.Call) and node.args:
        name = dotted(node.func)
        if name != "enumerate" and name.rsplit(".", 1)[-1] not in ("tqdm", "track"):
            break
        node = node.args[0].value
    return node


_WIDTH = 100
"""Characters of a line, from which on its variables get one each."""


def carry_lines(
    ckpt: str, names: Sequence[str | tuple[str, str]], *, assign: bool = True, in_pass: bool = False
) -> list[str]:
    """Return the lines that bring variables back; without ``assign`` for objects, which stay the same.

    ``names``: of variables, or (key, code) of what has no name.
    """
    pairs = [f'"{name}": {name}' if isinstance(name, str) else f'"{name[0]}": {name[1]}' for name in names]
    more = ", in_pass=True" if in_pass else ""
    listed = [str(name) for name in names]
    target = f"{', '.join(listed) if len(listed) > 1 else f'({listed[0]},)'} = " if assign else ""
    line = f"{target}{ckpt}.carry(lambda: {{{', '.join(pairs)}}}{more})"
    if len(line) <= _WIDTH:
        return [line]
    inner = [f"        {pair}," for pair in pairs]
    return [f"{target}{ckpt}.carry(", "    lambda: {", *inner, f"    }}{more}", ")"]


def key_of(name: str, taken: set[str]) -> str:
    """Return the name under which an object is saved, other than those that are ``taken``."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "", name.rsplit(".", 1)[-1]).lstrip("_-") or "object"
    found, number = plain, 2
    while found in taken or re.match(r"rng_state_|data_|vaultlayer", found):
        found, number = f"object_{plain}_{number}", number + 1
    taken.add(found)
    return found


def ends_with_break(statement: Any) -> bool:
    body = getattr(statement.body, "body", ())
    small: Any = getattr(body[-1], "body", (body[-1],)) if body else ()
    return bool(small) and isinstance(small[-1], cst.Break)


def prepares(script: Script) -> list[Any]:
    """Return the calls that name what an Accelerator saves."""
    return [call for name in ("prepare", "register_for_checkpointing") for call in method_calls(script, name)]


def prepared(script: Script) -> set[str]:
    return {dotted(one.value) for call in prepares(script) for one in call.args}


def exclude_each_other(script: Script, one: Any, other: Any) -> bool:
    """Tell whether two pieces of code can't both run: one needs ``option``, the other ``not option``."""
    needed, also = _conditions(script, one), _conditions(script, other)
    return any((test, not holds) in also for test, holds in needed)


def in_other_branch(script: Script, one: Any, other: Any) -> bool:
    """Tell whether two pieces of code are in the two branches of one condition."""
    mine, its = list(script.around(one)), list(script.around(other))
    return any(
        isinstance(up, cst.If)
        and up.orelse is not None
        and any(up is way for way in its)
        and any(up.orelse is way for way in mine) != any(up.orelse is way for way in its)
        for up in mine
    )


def same_conditions(script: Script, one: Any, other: Any) -> bool:
    """Tell whether the same options decide on two pieces of code, in one block or in blocks of one."""
    return _conditions(script, one) == _conditions(script, other)


def _conditions(script: Script, node: Any) -> set[tuple[str, bool]]:
    """Return the options that decide on a piece of code, each with whether it must hold."""
    found: set[tuple[str, bool]] = set()
    before = node
    for up in script.around(node):
        if isinstance(up, cst.FunctionDef):
            break
        if isinstance(up, cst.If) and before is not up.test:
            terms = _terms(up.test) if before is up.body else [up.test]
            for term in terms if before is up.body or not isinstance(up.test, cst.BooleanOperation) else ():
                holds = before is up.body
                if isinstance(term, cst.UnaryOperation) and isinstance(term.operator, cst.Not):
                    term, holds = term.expression, not holds
                if dotted(term):  # an option, and no call that says another thing next time
                    found.add((dotted(term), holds))
        before = up
    return found


def _terms(test: Any) -> list[Any]:
    """Return what must hold for a condition to hold: of ``a and b`` both."""
    if isinstance(test, cst.BooleanOperation):
        return [*_terms(test.left), *_terms(test.right)] if isinstance(test.operator, cst.And) else []
    return [test]
