"""Calls in a script: of methods by name, on what, and what a name was made by."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import Script, dotted

SCHEDULER = re.compile(r"sched|lr_", re.IGNORECASE)
"""Names of learning rate schedules."""
BARS = re.compile(r"(?:^|\.)(?:tqdm|trange|tqdm_notebook|Progress|alive_bar|track)$")
"""Progress bars."""
CLOCK = re.compile(
    r"(?:^|\.)(?:(?:time|monotonic|perf_counter|process_time)(?:_ns)?|now|utcnow|today|Event)$"
)
"""What shows the time, or that it has come: what it gives is another in each process."""


def method_calls(script: Script, name: str, inside: Any = None) -> list[Any]:
    """Return the calls of methods of a name."""
    return [
        call
        for call in script.all(cst.Call, inside)
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == name
    ]


def receiver(call: Any) -> str:
    """Return what a method is called on, as ``a.b``; ``""`` where that is no name."""
    return dotted(call.func.value)


def is_schedule(script: Script, name: str) -> bool:
    """Tell whether a name is that of a learning rate schedule."""
    if SCHEDULER.search(name):
        return True
    return any("lr_scheduler" in made or "schedule" in made for made in made_by(script, name))


def sources_of(script: Script, name: str) -> list[Any]:
    """Return the values that a name is assigned anywhere; of ``a, b = 1, 2`` each name its own."""
    return list(_sources(script).get(name, ()))


@dataclass(frozen=True)
class Assignment:
    """``a = b = 1``, ``a: int = 1`` or ``(a := 1)``.

    Attributes:
        node: all of it.
        targets: what is assigned to, a name, an attribute or a tuple for instance.
        value: what is assigned.
    """

    node: Any
    targets: tuple[Any, ...]
    value: Any


def assignments(script: Script, inside: Any = None, *, fields: bool = False) -> list[Assignment]:
    """Return what is assigned, in the order of the text; ``fields``: with the annotated ones of a class's own body."""
    found = []
    for node in script.all((cst.Assign, cst.AnnAssign, cst.NamedExpr), inside):
        if isinstance(node, cst.Assign):
            found.append(Assignment(node, tuple(one.target for one in node.targets), node.value))
        elif node.value is not None and (fields or not _is_field(script, node)):
            found.append(Assignment(node, (node.target,), node.value))
    return found


def _is_field(script: Script, node: Any) -> bool:
    """Tell whether an assignment is one of a class's own body: of a dataclass, a default."""
    home = next(
        (one for one in script.around(node) if isinstance(one, (cst.FunctionDef, cst.ClassDef))), None
    )
    return isinstance(home, cst.ClassDef)


@functools.lru_cache(maxsize=2)  # asked for at every call that a walk meets
def _sources(script: Script) -> dict[str, list[Any]]:
    """Return the values that each name is assigned; by ``""`` those of what has no name."""
    found: dict[str, list[Any]] = {}
    for node in assignments(script):
        for target in node.targets:
            found.setdefault(dotted(target), []).append(node.value)
            if isinstance(target, (cst.Tuple, cst.List)):
                names = [dotted(one.value) for one in target.elements]
                value = node.value
                several = isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(names)
                for name in dict.fromkeys(name for name in names if name):
                    own = value.elements[names.index(name)].value if several else value
                    found.setdefault(name, []).append(own)
    return found


_RETURNS_ITSELF = (
    "to",
    "cuda",
    "cpu",
    "train",
    "eval",
    "double",
    "float",
    "half",
    "bfloat16",
    "requires_grad_",
)
"""Methods of modules and tensors that return what they are called on."""


def call_that_makes(node: Any) -> Any:
    """Return ``Net()`` of ``Net().to(device)``; a node that isn't made so as it is."""
    while (
        isinstance(node, cst.Call)
        and isinstance(node.func, cst.Attribute)
        and node.func.attr.value in _RETURNS_ITSELF
        and isinstance(node.func.value, cst.Call)
    ):
        node = node.func.value
    return node


def made_by(script: Script, name: str) -> list[str]:
    """Return the paths of what is called to make what a name is assigned."""
    made = [call_that_makes(one) for one in sources_of(script, name)]
    return [script.path(one.func) for one in made if isinstance(one, cst.Call)]


def is_statement(node: Any) -> bool:
    """Tell whether a node is a statement with a line of its own."""
    return isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement))


def is_method(script: Script, function: Any) -> bool:
    """Tell whether a function is a method whose object is called ``self``."""
    home = next(
        (one for one in script.around(function) if isinstance(one, (cst.ClassDef, cst.FunctionDef))), None
    )
    listed = function.params.params
    return isinstance(home, cst.ClassDef) and bool(listed) and listed[0].name.value == "self"


def loop_of(script: Script, node: Any) -> Any:
    """Return the innermost loop around a node; None where there is none."""
    return next((one for one in script.around(node) if isinstance(one, (cst.For, cst.While))), None)


def function_of(script: Script, node: Any) -> Any:
    """Return the function around a node; None in the module."""
    return next((one for one in script.around(node) if isinstance(one, cst.FunctionDef)), None)
