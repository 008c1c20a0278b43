"""Scripts that train several times: a round of a loop for each fold, or a function that is called for each phase.

Each training gets a vault of its own, below the one that is named. A start goes through them in their order: those that
are over bring back how they ended, random numbers included, so that the next one begins as it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import is_plain
from vaultlayer_hf.run.insert.calls import function_of, is_method, is_statement
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk


@dataclass
class Trainings:
    """The trainings of a script.

    Attributes:
        around: the loop of which each round is a training; None where a function is called for each of them.
        number: the variable that numbers the rounds of ``around``.
        function: the FunctionDef of the function that trains; None where ``around`` isn't.
        calls: its calls, in the order of the text.
    """

    around: Any = None
    number: str = ""
    function: Any = None
    calls: list[Any] = field(default_factory=list)

    @property
    def own(self) -> Any:
        """The code that is run anew for each training."""
        return self.around.body if self.around is not None else self.function


def in_rounds(script: Script, around: Any, outer: Any) -> Trainings | None:
    """Return the trainings of a loop around ``outer``, the epochs of one; None where no number tells them apart.

    for fold in range(5):
    for fold, (train, test) in enumerate(splits):
    """
    if not isinstance(around, cst.For) or around.orelse is not None:
        return None
    if function_of(script, around) is not function_of(script, outer):
        return None
    call = around.iter
    while isinstance(call, cst.Call) and dotted(call.func).rpartition(".")[2] == "tqdm" and call.args:
        call = call.args[0].value
    counts = dotted(call.func) if isinstance(call, cst.Call) else ""
    number = around.target
    if counts == "enumerate" and isinstance(number, (cst.Tuple, cst.List)):
        number = number.elements[0].value
    elif counts not in ("range", "trange"):
        return None
    if not isinstance(number, cst.Name):
        return None
    ahead = Walk(script)
    ahead.block(before(script, around, outer))
    return None if number.value in ahead.written else Trainings(around, number.value)


def in_calls(script: Script, function: Any, calls: list[Any]) -> Trainings | None:
    """Return the trainings of a function that is called several times, each call once; None where that isn't seen."""
    name = function.name.value
    plain = is_plain(script, function) and not is_method(script, function) and not function.decorators
    named = [one for one in script.all(cst.Name) if one.value == name and one is not function.name]
    if not plain or len(calls) < 2 or len(named) != len(calls) or function.asynchronous is not None:
        return None
    if len([one for one in script.all(cst.FunctionDef) if one.name.value == name]) > 1:
        return None
    return (
        Trainings(None, "", function, calls) if all(_is_made_once(script, call) for call in calls) else None
    )


def before(script: Script, around: Any, node: Any) -> list[Any]:
    """Return the statements of a loop's round ahead of the one that holds a node."""
    path = [node, *script.around(node)]
    found: list[Any] = []
    for one in around.body.body:
        if any(one is up for up in path):
            break
        found.append(one)
    return found


def _is_made_once(script: Script, call: Any) -> bool:
    """Tell whether a call is made at most once: in no loop, and in no function that is called several times."""
    for up in script.around(call):
        if isinstance(up, cst.FunctionDef):
            name = up.name.value
            named = [one for one in script.all(cst.Name) if one.value == name and one is not up.name]
            calls = [one for one in named if isinstance(script.parent(one), cst.Call)]
            called = [one for one in calls if script.parent(one).func is one]
            if not is_plain(script, up) or is_method(script, up) or len(named) != 1 or called != named:
                return False
            return _is_made_once(script, script.parent(called[0]))
        if isinstance(up, (cst.For, cst.While, cst.Lambda, cst.BaseComp, cst.Try, cst.ClassDef)):
            return False
        if is_statement(up) and not isinstance(up, (cst.SimpleStatementLine, cst.If, cst.With)):
            return False
    return True
