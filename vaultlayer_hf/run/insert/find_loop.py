"""Find a script's training loop: where a step ends, which loop gives the batches, which one the epochs.

    optimizer.step() -> the suite that it ends -> the loop around it -> the loop around that

From a function the way goes on to the one place that calls it. What isn't understood is said, never guessed.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.by_hand import steps_by_hand
from vaultlayer_hf.run.insert.callers import calls_of, is_plain
from vaultlayer_hf.run.insert.calls import SCHEDULER, is_statement, made_by, method_calls, receiver
from vaultlayer_hf.run.insert.loop import Call, Loop, UnclearError
from vaultlayer_hf.run.insert.outer_loops import find_outer
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk
from vaultlayer_hf.run.insert.wrappers import wrapped_step

_OPTIMIZER = re.compile(r"optim|adam|sgd|adagrad|rmsprop|lion|adafactor|\bopts?\b", re.IGNORECASE)


def find_loop(script: Script) -> Loop:
    """Return the training loop. Raises UnclearError."""
    if not method_calls(script, "backward"):
        raise UnclearError("nothing in it calls backward()")
    for call in method_calls(script, "step"):
        if not receiver(call) and _OPTIMIZER.search(script.code(call.func.value)):
            raise UnclearError(
                f"line {script.line(call)} steps {script.code(call.func.value)}, an optimizer that has no name of its "
                "own"
            )
    steps = _optimizer_steps(script)
    wrapped = wrapped_step(script, steps)
    if wrapped is not None:
        steps = [(wrapped.call, wrapped.optimizer)]
    by_hand = steps_by_hand(script) if not steps else []
    if not steps and not by_hand:
        raise UnclearError("nothing in it calls optimizer.step() after backward()")
    names = list(dict.fromkeys(name for _, name in steps)) or [""]
    steps = steps or by_hand
    calls = [call for call, _ in steps]
    functions = {id(_function(script, call)) for call in calls}
    if len(functions) > 1:
        lines = ", ".join(str(script.line(call)) for call in calls)
        raise UnclearError(f"it steps the optimizer in several functions (lines {lines})")
    statement = _common_statement(script, calls)
    if len(names) > 1 and isinstance(statement, (cst.For, cst.While)):
        # Each optimizer has its turn within one round, and the end of the round is the end of the step.
        body = list(statement.body.body)
        last = max(
            number
            for number, one in enumerate(body)
            if any(up is one for call in calls for up in script.around(call))
        )
        loop = Loop(calls, statement.body, body[last:], None, statement)
    elif isinstance(statement, (cst.For, cst.While, cst.FunctionDef, cst.Module)) and statement not in calls:
        if len(calls) == 1:  # the smallest statement around it is the loop itself
            raise UnclearError(f"line {script.line(calls[0])} has a block on the line of its head")
        _refuse_rest(script, statement, calls)
        lines = ", ".join(str(script.line(call)) for call in calls)
        where = "of one loop" if isinstance(statement, (cst.For, cst.While)) else "that no one loop holds"
        raise UnclearError(f"the optimizer steps at several places {where} (lines {lines})")
    else:
        try:
            loop = _climb(script, calls, statement)
        except UnclearError:
            if len({id(one) for call in calls for one in _loops_within(script, statement, call)[:1]}) < 2:
                raise
            lines = ", ".join(str(script.line(call)) for call in calls)
            raise UnclearError(
                f"it steps the optimizer in several loops (lines {lines}), for a condition says in which"
            ) from None
    loop.sync = loop.sync or any(_is_gathered(script, call, loop.inner) for call in calls)
    loop.optimizer, loop.optimizers = names[0], [name for name in names if name]
    loop.by_hand = by_hand[0][1] if by_hand else ""
    if wrapped is not None:
        loop.only_if = wrapped.only_if
        if loop.only_if and (loop.crossed or loop.condition is not None):
            raise UnclearError(
                f"the call in line {script.line(wrapped.call)} decides itself which batches make a step"
            )
    find_outer(script, loop)
    return loop


def _loops_within(script: Script, outer: Any, node: Any) -> list[Any]:
    """Return the loops around a node within a statement, from the inside."""
    around = list(script.around(node))
    inside = around[: next((number for number, one in enumerate(around) if one is outer), 0)]
    return [one for one in inside if isinstance(one, (cst.For, cst.While))]


def _refuse_rest(script: Script, outer: Any, calls: list[Any]) -> None:
    """Raise UnclearError for a step of the batches that are left over behind the loop in which the others are made."""
    loops = [_loops_within(script, outer, call) for call in calls]
    first, last = loops[0], loops[-1]
    if len(calls) == 2 and first and not last and isinstance(outer, cst.FunctionDef):
        raise UnclearError(
            f"line {script.line(calls[-1])} steps the optimizer once more behind the loop of line "
            f"{script.line(first[-1])}: only steps of one loop are followed"
        )


def _is_gathered(script: Script, call: Any, loop: Any) -> bool:
    """Tell whether a step is made within ``accelerator.accumulate``, in a loop or in one branch of it."""
    around = list(script.around(call))
    inside = around[: next((number for number, one in enumerate(around) if one is loop), 0)]
    return any(
        isinstance(one, cst.With) and any("accumulate" in script.code(item.item) for item in one.items)
        for one in inside
    )


def _optimizer_steps(script: Script) -> list[tuple[Any, str]]:
    cleared = {receiver(call) for call in method_calls(script, "zero_grad")}
    found = []
    rounds = _local_rounds(script)
    functions = {one.name.value for one in script.all(cst.FunctionDef)}
    for call in method_calls(script, "step"):
        if receiver(call) in rounds:
            continue
        on, first = receiver(call), dotted(call.args[0].value) if call.args else ""
        first = "" if first in functions else first  # optimizer.step(closure)
        if first and (first in cleared or _OPTIMIZER.search(first)):
            found.append((call, first))  # scaler.step(optimizer)
        elif on and not SCHEDULER.search(on) and (on in cleared or _is_optimizer(script, on)):
            found.append((call, on))
    return found


def _local_rounds(script: Script) -> set[str]:
    """Return the names of Accelerate's LocalSGD, which is no optimizer."""
    return {
        dotted(item.asname.name)
        for item in script.all(cst.WithItem)
        if item.asname is not None
        and isinstance(item.item, cst.Call)
        and script.path(item.item.func).endswith("LocalSGD")
    }


def _is_optimizer(script: Script, name: str) -> bool:
    """Tell whether a name is that of an optimizer, or is assigned one of torch's."""
    return bool(_OPTIMIZER.search(name)) or any(
        re.fullmatch(r"torch\.optim\.[A-Z]\w*", one) for one in made_by(script, name)
    )


def _function(script: Script, node: Any) -> Any:
    return next((one for one in script.around(node) if isinstance(one, (cst.FunctionDef, cst.Lambda))), None)


def _common_statement(script: Script, calls: list[Any]) -> Any:
    """Return the smallest statement that holds all of these."""
    paths = [[call, *script.around(call)] for call in calls]
    common = [node for node in paths[0] if all(any(node is one for one in path) for path in paths[1:])]
    return next((node for node in common if is_statement(node)), script.module)


def _climb(script: Script, steps: list[Any], statement: Any) -> Loop:
    """Go from the step to the loop around it."""
    suite: Any = None
    condition: Any = None
    sync = False
    calls: list[Call] = []
    tail: list[Any] = []
    while True:
        block = script.parent(statement)
        if not isinstance(block, cst.IndentedBlock):
            if block is script.module or block is None:
                raise UnclearError(f"optimizer.step() in line {script.line(steps[0])} is in no loop")
            raise UnclearError(f"line {script.line(statement)} has a block on the line of its head")
        owner = script.parent(block)
        if suite is None:
            position = next(number for number, one in enumerate(block.body) if one is statement)
            tail = list(block.body[position:])
        if isinstance(owner, (cst.For, cst.While)):
            return Loop(steps, suite or block, tail, condition, owner, None, calls, len(calls), "", sync)
        if isinstance(owner, cst.If) and (
            re.search("%|sync_gradients", script.code(owner.test)) or _lets_step(script, owner)
        ):
            if suite is None:
                suite, condition = block, owner
        elif isinstance(owner, cst.With):
            sync = sync or any("accumulate" in script.code(item.item) for item in owner.items)
        elif isinstance(owner, cst.FunctionDef):
            if suite is not None:
                raise UnclearError(f"{owner.name.value}() decides itself which batches make a step")
            calls.append(_only_call(script, owner))
            statement = _statement_of(script, calls[-1].call)
            continue
        elif isinstance(owner, (cst.Else, cst.Finally, cst.ExceptHandler)):
            kinds = (cst.If, cst.Try, cst.For, cst.While)
            owner = next(one for one in script.around(owner) if isinstance(one, kinds))
            if isinstance(owner, (cst.For, cst.While)):
                raise UnclearError(
                    f"optimizer.step() in line {script.line(steps[0])} is in the else of a loop"
                )
        elif not isinstance(owner, (cst.If, cst.Try)):
            raise UnclearError(
                f"optimizer.step() in line {script.line(steps[0])} is in a {type(owner).__name__}"
            )
        statement = owner
        while isinstance(script.parent(statement), cst.If):  # elif hangs from the if before
            statement = script.parent(statement)


def _lets_step(script: Script, condition: Any) -> bool:
    """Tell whether batches are gathered until a condition lets a step come: all go backward, and it alone clears."""
    kinds = (cst.For, cst.While, cst.FunctionDef)
    loop = next((one for one in script.around(condition) if isinstance(one, kinds)), None)
    if (
        loop is None
        or isinstance(loop, cst.FunctionDef)
        or not _changes_by_round(script, loop, condition.test)
    ):
        return False

    def outside(node: Any, *, always: bool = False) -> bool:
        for up in script.around(node):
            if up is loop:
                return True
            if up is condition or (always and isinstance(up, (cst.If, cst.FunctionDef))):
                return False
        return False

    clearing = {
        one.name.value for one in script.all(cst.FunctionDef) if method_calls(script, "zero_grad", one)
    }
    clears = [
        call
        for call in script.all(cst.Call, loop.body)
        if dotted(call.func) in clearing
        or (isinstance(call.func, cst.Attribute) and call.func.attr.value == "zero_grad")
    ]
    clears += [one for one in script.all(cst.AssignTarget, loop.body) if script.code(one).endswith(".grad")]
    goes_back = any(outside(call) for call in method_calls(script, "backward", loop.body))
    either = condition.orelse is not None and any(
        any(up is condition.orelse for up in script.around(one)) for one in clears
    )
    alone = any(any(up is condition.body for up in script.around(one)) for one in clears)
    return goes_back and alone and not either and not any(outside(one, always=True) for one in clears)


def _changes_by_round(script: Script, loop: Any, test: Any) -> bool:
    """Tell whether a condition may say another thing in the next round of a loop: it is no option."""
    walk = Walk(script, follow=False)
    if isinstance(loop, cst.For):
        walk.target(loop.target)
    walk.suite(loop.body)
    read = {dotted(one) for one in script.all((cst.Name, cst.Attribute), test)}
    calls = [script.code(call.func) for call in script.all(cst.Call, test)]
    return bool(read & set(walk.written)) or any(re.search("ready|should|update|step", one) for one in calls)


def _statement_of(script: Script, node: Any) -> Any:
    return next(one for one in script.around(node) if is_statement(one))


def _only_call(script: Script, function: Any) -> Call:
    name, found = function.name.value, calls_of(script, function)
    if not is_plain(script, function):
        raise UnclearError(f"the loop is spread over {name}(), which is a function in a function")
    if len(found) != 1:
        raise UnclearError(f"{name}(), which steps the optimizer, is called at {len(found)} places")
    return Call(function, found[0])
