"""Loops that are understood, and that a resume couldn't bring back right: these are left alone, with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import (
    function_of,
    is_schedule,
    is_statement,
    method_calls,
    receiver,
    sources_of,
)
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.own_classes import COUNTS, GROWS
from vaultlayer_hf.run.insert.pieces import prepared, prepares
from vaultlayer_hf.run.insert.saved_states import OPTION
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.streams import refuse_streams
from vaultlayer_hf.run.insert.walk import Walk

_COPIES = re.compile(r"(?:^|\.)(?:deepcopy|optimize)$")
"""What makes a model of another one, as ``ipex.optimize`` does."""


def refuse_what_cannot_resume(script: Script, loop: Loop, opens: Sequence[Any]) -> None:
    """Raise UnclearError for a loop whose position or schedule a checkpoint would miss; ``opens``: see streams.py."""
    refuse_streams(script, loop, opens)
    for name, line in schedules(
        script, _behind(script, loop.condition) if loop.condition is not None else []
    ):
        raise UnclearError(
            f"{name}.step() in line {line} comes after the end of the step: move it into the block of optimizer.step()"
        )


def schedules(script: Script, statements: list[Any], outer: Any = None) -> list[tuple[str, int]]:
    """Return the learning rate schedules that these statements step, and where.

    Not those that are told the number of the epoch, which ``outer`` counts: it is the same where that is repeated.
    """
    epoch = dotted(outer.target) if isinstance(outer, cst.For) else ""
    calls = [call for statement in statements for call in method_calls(script, "step", statement)]
    return [
        (receiver(call), script.line(call))
        for call in calls
        if receiver(call)
        and is_schedule(script, receiver(call))
        and len(call.args) < 3  # a sampler of diffusers': step(noise, time, image)
        and not (epoch and [dotted(one.value) for one in call.args] == [epoch])
    ]


def ahead(script: Script, loop: Loop) -> list[Any]:
    """Return the statements of an epoch ahead of its batches, those in the blocks around the batches among them."""
    node = loop.calls[-1].call if len(loop.calls) > loop.crossed else loop.inner
    found: list[Any] = []
    for one in _on_the_way(script, loop.outer.body, node):
        if isinstance(one, cst.If) and asks_for_state(script, one.test):
            other: Any = one.orelse  # the script's own resume, which ours switches off
            found += other.body.body if isinstance(other, cst.Else) else [other] if other else []
        else:
            found.append(one)
    return found


def _on_the_way(script: Script, block: Any, node: Any) -> list[Any]:
    """Return the statements of a block ahead of what is in it, and those of the blocks within: of a ``with``, an if."""
    way = [node, *script.around(node)]
    way = way[: next(number for number, one in enumerate(way) if one is block) + 1]
    found: list[Any] = []
    for number in range(len(way) - 1, 0, -1):
        if isinstance(way[number], cst.IndentedBlock):
            body = way[number].body
            found += body[: next(place for place, one in enumerate(body) if one is way[number - 1])]
    return found


def asks_for_state(script: Script, test: Any) -> bool:
    """Tell whether a condition begins with the option that names the state to go on from."""
    while isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.And):
        test = test.left
    return isinstance(test, cst.Attribute) and test.attr.value == OPTION


def ahead_within(script: Script, loop: Loop) -> list[Any]:
    """Return the statements ahead of the batches in a function between the epochs and them."""
    if len(loop.calls) == loop.crossed:
        return []
    return _on_the_way(script, loop.calls[loop.crossed].function.body, loop.inner)


def refuse_what_repeats(
    script: Script, loop: Loop, again: Walk, kept: list[str], names: Names, reset: list[str]
) -> None:
    """Raise UnclearError for what an epoch changes ahead of its batches.

    That code runs again where a resume goes on within the epoch: with the random numbers of then, and the variables and
    weights of the save. ``again``: its walk; ``kept``: what is brought back; ``reset``: what of it comes back behind
    that code once more.
    """
    statements = [*ahead(script, loop), *ahead_within(script, loop)]

    def refuse(line: int, what: str) -> None:
        raise UnclearError(
            f"line {line} {what} ahead of an epoch's batches, where a resume within the epoch would repeat it: move it "
            "after them"
        )

    for name in kept:
        if name in again.written and name in again.read_first:
            refuse(again.written[name], f"changes {name}")
        if name in again.changed and name not in reset:
            refuse(again.changed[name], f"changes {name}")
    optimizers = {names.optimizer, *loop.optimizers}
    trained = {*optimizers, *names.models, *names.others, *(prepared(script) if names.accelerator else ())}
    for on, method, call in again.calls:
        changes = GROWS.fullmatch(method) or COUNTS.fullmatch(method)
        if on in kept and on not in reset and changes:
            refuse(script.line(call), f"changes {on}")
        if method == "load_state_dict":
            refuse(script.line(call), f"loads {on}")
    for name, line in again.changed.items():
        owner = name.removesuffix(".param_groups")
        if owner != name and owner in optimizers:
            continue
        if name.partition(".")[0] in trained or name in trained:
            refuse(line, f"changes {name}")
    for node in [one for statement in statements for one in script.all(cst.AugAssign, statement)]:
        if isinstance(node.target, cst.Subscript) and not is_option(script, node.target):
            refuse(script.line(node), f"changes {script.code(node.target)}")
    for call in [one for statement in statements for one in script.all(cst.Call, statement)]:
        path = script.path(call.func)
        own = any(one.keyword is not None and one.keyword.value == "generator" for one in call.args)
        if own and not path.endswith("DataLoader"):
            refuse(script.line(call), "draws from a generator of its own")
        if path.endswith("shuffle"):
            refuse(script.line(call), "shuffles in place")


def refuse_remade(script: Script, loop: Loop) -> None:
    """Raise UnclearError for what a library makes of an object behind ``prepare``: the Accelerator saves the other."""
    start = script.span(loop.top)[0]
    for call in prepares(script):
        home, end = function_of(script, call), script.span(call)[1]
        for name in filter(None, (dotted(one.value) for one in call.args)):
            for source in sources_of(script, name):
                there = function_of(script, source) is home and end < script.span(source)[0] < start
                if there and isinstance(source, cst.Call) and _COPIES.search(script.path(source.func)):
                    raise UnclearError(
                        f"line {script.line(source)} makes {name} anew after accelerator.prepare(), which saves the "
                        "one that it was given"
                    )


def _behind(script: Script, statement: Any) -> list[Any]:
    """Return the statements behind one, in its block."""
    while not is_statement(statement) or script.parent(statement) is None:
        statement = script.parent(statement)
    body = getattr(script.parent(statement), "body", ())
    return list(body[next(number for number, one in enumerate(body) if one is statement) + 1 :])


def is_option(script: Script, target: Any) -> bool:
    """Tell whether what is assigned to is an option of an optimizer's group, as ``group["lr"]`` is."""
    key = script.code(target.slice[0])
    if "params" in key or key.strip("rbfu")[:1] not in ("'", '"'):
        return False
    if "param_groups" in script.code(target.value):
        return True
    loops = [one for one in script.around(target) if isinstance(one, cst.For)]
    return any(
        "param_groups" in script.code(one.iter)
        and dotted(target.value) in {n.value for n in script.all(cst.Name, one.target)}
        for one in loops
    )


def refuse_new_groups(script: Script, loop: Loop, walk: Walk, accelerated: bool) -> None:
    """Raise UnclearError for a group of parameters that the loop adds, where a resume would add it twice, or never.

    What a Checkpointer itself saves, it adds; ahead of an epoch's batches the script would do so again.
    """
    statements = [*ahead(script, loop), *ahead_within(script, loop)] if loop.outer is not None else []
    around = [one for one in script.around(loop.inner) if isinstance(one, cst.FunctionDef)]
    for _, method, call in walk.calls:
        if method != "add_param_group":
            continue
        home = next((one for one in script.around(call) if isinstance(one, cst.FunctionDef)), None)
        why = ""
        if accelerated:
            why = "within the loop, which a new start's optimizer hasn't got"
        elif any(up is one for one in statements for up in script.around(call)):
            why = "ahead of an epoch's batches, where a resume within the epoch would repeat it: move it after them"
        elif loop.outer is not None and home is not None and not any(home is one for one in around):
            why = "in a function, and whether that is called ahead of an epoch's batches isn't seen"
        if why:
            raise UnclearError(f"line {script.line(call)} adds a group to {receiver(call)} {why}")
