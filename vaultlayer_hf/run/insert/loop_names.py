"""What a training loop's objects are called where its Checkpointer is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert.flow import is_known
from vaultlayer_hf.run.insert.loop import (
    Call,
    Loop,
    UnclearError,
    is_schedule,
    made_by,
    method_calls,
    receiver,
)
from vaultlayer_hf.run.insert.source import Script, dotted, libcst_or_error

_PARAMETERS = re.compile(r"([A-Za-z_][\w.]*)\.(?:named_)?parameters\(\)")
_AVERAGE = re.compile(r"ema|averag|swa", re.IGNORECASE)


@dataclass
class Names:
    """Objects of a loop, by their names at its outermost level.

    Attributes:
        models: the first is the model.
        optimizer: the optimizer.
        scheduler: the learning rate schedule; ``""`` where there is none.
        others: more objects whose state a resume needs: a gradient scaler, an average of the weights.
        accelerator: the Accelerator; ``""`` in plain PyTorch.
        loss: the loss where a step ends, in the function of the step; ``""`` where it has no name there.
    """

    models: list[str] = field(default_factory=list)
    optimizer: str = ""
    scheduler: str = ""
    others: list[str] = field(default_factory=list)
    accelerator: str = ""
    loss: str = ""


def find_names(script: Script, loop: Loop) -> Names:
    """Return the names of a loop's objects. Raises UnclearError."""
    accelerator = _accelerator(script)
    names = Names(accelerator=accelerator, optimizer=at_top(script, loop.calls, loop.optimizer))
    region = [loop.top, *(call.function for call in loop.calls)]
    stepped = _distinct(receiver(call) for node in region for call in method_calls(script, "step", node))
    schedules = [at_top(script, loop.calls, name) for name in stepped if name != loop.optimizer and name]
    schedules = _distinct(name for name in schedules if is_schedule(script, name))
    if len(schedules) > 1:
        names.others += schedules[1:]
    names.scheduler = schedules[0] if schedules else ""
    for call in (call for node in region for call in method_calls(script, "step", node)):
        if call.args and dotted(call.args[0].value) == loop.optimizer:
            names.others.append(at_top(script, loop.calls, receiver(call)))  # scaler.step(optimizer)
    for name in ("update", "update_parameters"):
        for node in region:
            for call in method_calls(script, name, node):
                if _AVERAGE.search(receiver(call)):
                    names.others.append(at_top(script, loop.calls, receiver(call)))
    names.others = _distinct(name for name in names.others if name)
    names.loss = _loss(script, loop)
    if not accelerator:
        names.models = _models(script, loop, names.optimizer, region)
    for name in (names.accelerator or names.optimizer, *names.models, names.scheduler, *names.others):
        if name and not is_known(script, name, loop.top):
            raise UnclearError(f"{name} isn't known in line {script.line(loop.top)}, where its loop starts")
    return names


def at_top(script: Script, calls: list[Call], name: str) -> str:
    """Return what a name of the innermost function is called at the outermost loop. Raises UnclearError."""
    for call in calls:
        first, dot, rest = name.partition(".")
        parameters = call.function.params
        listed = [one.name.value for one in (*parameters.params, *parameters.kwonly_params)]
        if first not in listed:
            continue  # a name of the module
        given = {one.keyword.value: one.value for one in call.call.args if one.keyword is not None}
        placed = [one.value for one in call.call.args if one.keyword is None and not one.star]
        value = given.get(first)
        if value is None and listed.index(first) < len(placed):
            value = placed[listed.index(first)]
        outer = dotted(value) if value is not None else ""
        if not outer:
            raise UnclearError(
                f"{call.function.name.value}() is given {first} without a name in line {script.line(call.call)}"
            )
        name = outer + dot + rest
    return name


def _accelerator(script: Script) -> str:
    cst: Any = libcst_or_error()
    for node in script.all(cst.Assign):
        if isinstance(node.value, cst.Call) and script.path(node.value.func).startswith(
            "accelerate.Accelerator"
        ):
            return dotted(node.targets[0].target)
    return ""


def _models(script: Script, loop: Loop, optimizer: str, region: list[Any]) -> list[str]:
    cst: Any = libcst_or_error()
    found: list[str] = []
    assigned = [
        node.value
        for node in script.all(cst.Assign)
        if any(dotted(one.target) == optimizer for one in node.targets)
    ]
    for value in assigned:
        texts = [script.code(value)]
        arguments = value.args if isinstance(value, cst.Call) else ()
        for argument in arguments:  # groups that were put together before
            texts += [
                script.code(node.value)
                for node in script.all(cst.Assign)
                if any(dotted(one.target) == dotted(argument.value) != "" for one in node.targets)
            ]
        found += [name for text in texts for name in _PARAMETERS.findall(text)]
    if not found:  # made in a function of its own: what is put into training mode
        for node in [*region, *_functions_around(script, loop)]:
            for call in method_calls(script, "train", node):
                if receiver(call):
                    inside = any(node is call.function for call in loop.calls)
                    found.append(at_top(script, loop.calls, receiver(call)) if inside else receiver(call))
    if not found:
        found = [name for name in ("model", "net", "network") if made_by(script, name)]
    if not found:
        raise UnclearError(f"the model that {optimizer} trains wasn't found")
    return _distinct(found)


def _functions_around(script: Script, loop: Loop) -> list[Any]:
    cst: Any = libcst_or_error()
    return [one for one in script.around(loop.top) if isinstance(one, cst.FunctionDef)]


def _loss(script: Script, loop: Loop) -> str:
    """Return the name of the loss, where the end of the step can see it and nothing deletes it."""
    cst: Any = libcst_or_error()
    home = next((one for one in script.around(loop.suite) if isinstance(one, cst.FunctionDef)), script.module)
    for call in method_calls(script, "backward", home):
        value: Any = call.func.value
        if call.args:
            value = call.args[0].value  # accelerator.backward(loss)
        elif isinstance(value, cst.Call) and value.args:
            value = value.args[0].value  # scaler.scale(loss).backward()
        name = dotted(value)
        if name and "." not in name and any(one is loop.inner for one in script.around(call)):
            return name
    return ""


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
