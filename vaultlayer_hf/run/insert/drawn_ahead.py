"""Shuffled data that a script goes through ahead of its loop: without a seed in another order at each start.

What one batch leaves (pictures to look at results by) comes back; what a whole pass leaves, such as a cache of what the
loop asks for by the number of its batch, would be another one.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, function_of, sources_of
from vaultlayer_hf.run.insert.draws import in_use
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.own_classes import GROWS
from vaultlayer_hf.run.insert.pieces import innermost, places
from vaultlayer_hf.run.insert.random_calls import seeds_of
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.streams import opened_there
from vaultlayer_hf.run.insert.walk import Walk

_KEEPS_TENSOR = re.compile(
    r"(?:^|\.)(?:to|type|type_as|cuda|cpu|float|half|view|reshape|data|clone|detach|Variable)$"
)


def first_batches(script: Script, loop: Loop) -> list[str]:
    """Return the names of tensors of a shuffled loader's first batch that the loop reads, where nothing seeds it.

    Raises UnclearError where something else was made of them.
    """
    if "torch" in seeds_of(script):
        return []
    read = {one.value for part in in_use(script, loop) for one in script.all(cst.Name, part)}
    found: list[str] = []
    ahead = [one for one in assignments(script) if _is_ahead(script, loop, one.node)]
    for one in ahead:
        call = one.value
        if not (isinstance(call, cst.Call) and dotted(call.func) == "next" and call.args):
            continue
        opened: Any = call.args[0].value
        if not opened_there(script, opened) or not _is_shuffled(script, dotted(opened.args[0].value)):
            continue
        names = {name.value for target in one.targets for name in script.all(cst.Name, target)}
        for other in ahead[ahead.index(one) + 1 :]:
            made = {name.value for target in other.targets for name in script.all(cst.Name, target)}
            if not names & {name.value for name in script.all(cst.Name, other.value)}:
                continue
            if made & read and not _keeps_tensor(script, other.value):
                raise UnclearError(
                    f"line {script.line(other.node)} makes {', '.join(sorted(made & read))} of a batch that is another "
                    "one at each start (shuffled without a seed): set a seed first, such as torch.manual_seed(0)"
                )
            names |= made
        found += sorted(names & read)
    return found


def refuse_pass_ahead(script: Script, loop: Loop) -> None:
    """Raise UnclearError where the loop reads what an unseeded pass through shuffled data has left."""
    for line, name in [] if "torch" in seeds_of(script) else _passes(script, loop):
        raise UnclearError(
            f"line {line} goes through {name} in an order that is drawn anew at each start (shuffled without a seed), "
            "and the loop reads what that has left: set a seed first, such as torch.manual_seed(0)"
        )


def seed_to_give(script: Script, loop: Loop) -> str:
    """Return what to say of a pass ahead whose order follows from a seed that an option gives; ``""`` for nothing."""
    passes = _passes(script, loop)
    asked = [
        (script.line(call), option)
        for call in script.all(cst.Call)
        if "seed" in script.path(call.func).rpartition(".")[2] and (option := _only_where(script, call))
    ]
    if not passes or not asked or "torch" not in seeds_of(script):
        return ""
    (line, name), (at, option) = passes[0], asked[0]
    return (
        f"Line {at} seeds only where {option} is given: give it, for without a seed line {line} goes through {name} in "
        "another order at each start, and a resume reads what that has left."
    )


def _is_ahead(script: Script, loop: Loop, node: Any) -> bool:
    """Tell whether a piece of code runs ahead of the loop, in its function."""
    return script.span(node)[1] <= script.span(loop.top)[0] and function_of(script, node) is function_of(
        script, loop.top
    )


def _is_shuffled(script: Script, name: str) -> bool:
    """Tell whether a name is that of a loader that shuffles by torch's random numbers."""
    for source in sources_of(script, name) if name else ():
        if isinstance(source, cst.Call) and script.path(source.func).endswith("DataLoader"):
            given = {one.keyword.value: one.value for one in source.args if one.keyword is not None}
            asked = given.get("shuffle")
            if asked is not None and dotted(asked) != "False" and "generator" not in given:
                return True
    return False


def _keeps_tensor(script: Script, value: Any) -> bool:
    """Tell whether a value is a tensor that it is made of, moved, wrapped or in part."""
    while not isinstance(value, cst.Name):
        if isinstance(value, cst.Call):
            on = value.func.value if isinstance(value.func, cst.Attribute) else None
            path = dotted(value.func) or (f".{value.func.attr.value}" if on is not None else "")
            if not _KEEPS_TENSOR.search(path):
                return False
            wraps = path.endswith("Variable") and places(value)
            value = places(value)[0].value if wraps else on
        elif isinstance(value, (cst.Attribute, cst.Subscript)):
            value = value.value
        else:
            return False
    return True


def _passes(script: Script, loop: Loop) -> list[tuple[int, str]]:
    """Return the passes through shuffled data ahead of the loop that leave what it reads: the line, the loader."""
    read = {one.value for one in script.all(cst.Name, loop.top)}
    found = []
    for node in script.all(cst.For):
        name = dotted(innermost(node.iter))
        if not _is_ahead(script, loop, node) or not _is_shuffled(script, name):
            continue
        walk = Walk(script, follow=False)
        walk.block(node.body.body)
        left = {on for on, method, _ in walk.calls if GROWS.fullmatch(method)} | set(walk.changed)
        targets = {one.value for one in script.all(cst.Name, node.target)}
        if {one.partition(".")[0] for one in left} & read - targets:
            found.append((script.line(node), name))
    return found


def _only_where(script: Script, call: Any) -> str:
    """Return the option without which a call isn't made that it is given to; ``""`` where it is always made."""
    given = {dotted(one.value) for one in call.args} - {""}
    for up in script.around(call):
        if isinstance(up, cst.If):
            names = {dotted(one) for one in script.all((cst.Name, cst.Attribute), up.test)}
            for option in sorted(given & names):
                return "" if _has_default(script, option) else option
    return ""


def _has_default(script: Script, option: str) -> bool:
    """Tell whether an option of the command line is given a value where nobody names it."""
    last = option.rpartition(".")[2]
    for call in script.all(cst.Call):
        named = [script.code(one.value).strip("\"'").lstrip("-").replace("-", "_") for one in places(call)]
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "add_argument" and last in named:
            default = [
                one.value for one in call.args if one.keyword is not None and one.keyword.value == "default"
            ]
            return bool(default) and dotted(default[0]) != "None"
    return False
