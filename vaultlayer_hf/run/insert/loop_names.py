"""What a training loop's objects are called where its Checkpointer is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.averages import is_average, is_from_elsewhere, lacks_state
from vaultlayer_hf.run.insert.bare_tensors import refuse_bare_tensors, trained_tensors, trains_tensors_alone
from vaultlayer_hf.run.insert.called_models import called_beside, called_models, is_own
from vaultlayer_hf.run.insert.calls import (
    assignments,
    is_method,
    is_schedule,
    made_by,
    method_calls,
    receiver,
    sources_of,
)
from vaultlayer_hf.run.insert.defined_before import defined_before, is_known
from vaultlayer_hf.run.insert.loop import Call, Loop, UnclearError
from vaultlayer_hf.run.insert.loss_name import loss_name
from vaultlayer_hf.run.insert.maybe_set import maybe_set
from vaultlayer_hf.run.insert.model_part import members_of, model_part
from vaultlayer_hf.run.insert.source import Script, dotted

_PARAMETERS = re.compile(r"([A-Za-z_][\w.]*)\.(?:named_)?parameters\(\)")


@dataclass
class Names:
    """Objects of a loop, by their names at its outermost level.

    Attributes:
        models: the first is the model.
        optimizer: the optimizer; ``""`` where the script has none.
        scheduler: the learning rate schedule; ``""`` where there is none.
        others: more objects whose state a resume needs: a gradient scaler, an average of the weights.
        accelerator: the Accelerator; ``""`` in plain PyTorch.
        loss: the loss where a step ends, in the function of the step; ``""`` where it has no name there.
        tensors: what the optimizers are given beside a module's parameters: tensors, and lists of them.
        of_pass: schedules that each epoch makes anew, ahead of its batches.
        unseen: averages of classes from elsewhere, which may have no ``state_dict``.
        maybe: those of all these that are made only under a condition.
    """

    models: list[str] = field(default_factory=list)
    optimizer: str = ""
    scheduler: str = ""
    others: list[str] = field(default_factory=list)
    accelerator: str = ""
    loss: str = ""
    tensors: list[str] = field(default_factory=list)
    of_pass: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    maybe: list[str] = field(default_factory=list)


def find_names(script: Script, loop: Loop) -> Names:
    """Return the names of a loop's objects. Raises UnclearError."""
    accelerator = _accelerator(script)
    optimizers = [at_top(script, loop.calls, name) for name in loop.optimizers]
    if loop.sync and not accelerator:
        raise UnclearError("the Accelerator that gathers its batches isn't seen in it")
    names = Names(accelerator=accelerator, optimizer=optimizers[0] if optimizers else "")
    region = [loop.top, *(call.function for call in loop.calls)]
    calls = [call for node in region for call in method_calls(script, "step", node)]
    stepped = _distinct(receiver(call) for call in calls if len(call.args) < 3)  # a sampler's has three
    schedules = [at_top(script, loop.calls, name) for name in stepped if name not in loop.optimizers and name]
    schedules = _distinct(name for name in schedules if is_schedule(script, name))
    names.of_pass = [name for name in schedules if _is_of_pass(script, loop, name)]
    schedules = [name for name in schedules if name not in names.of_pass]
    if len(schedules) > 1:
        names.others += schedules[1:]
    names.scheduler = schedules[0] if schedules else ""
    for call in (call for node in region for call in method_calls(script, "step", node)):
        if call.args and dotted(call.args[0].value) in loop.optimizers:
            names.others.append(at_top(script, loop.calls, receiver(call)))  # scaler.step(optimizer)
    for name in ("update", "update_parameters"):
        for node in region:
            for call in method_calls(script, name, node):
                if is_average(script, receiver(call)) and not lacks_state(script, receiver(call)):
                    one = at_top(script, loop.calls, receiver(call))
                    (names.unseen if is_from_elsewhere(script, receiver(call)) else names.others).append(one)
    for optimizer in optimizers:
        if accelerator:
            refuse_bare_tensors(script, optimizer)
        names.tensors += trained_tensors(script, optimizer)
    if not accelerator:
        modules = [one for one in optimizers if not trains_tensors_alone(script, one)]
        names.models = _distinct(
            name for optimizer in modules for name in _models(script, loop, optimizer, region)
        )
        if loop.by_hand:
            names.models = [model_part(script, at_top(script, loop.calls, loop.by_hand))]
        names.others = optimizers[1:] + names.others
    if loop.trainings is not None and loop.trainings.function is not None:
        names.others += called_beside(script, loop.trainings, names.models)
    names.others = [name for name in _distinct(names.others) if name and name not in names.models]
    names.loss = loss_name(script, loop)
    needed = (
        names.accelerator or names.optimizer,
        *names.models,
        names.scheduler,
        *names.others,
        *names.unseen,
    )
    for name in needed:
        if name and not is_known(script, name, loop.top):
            if name == names.optimizer and _made_within(script, loop, name):
                raise _trains_again(script, loop)
            raise UnclearError(f"{name} isn't known in line {script.line(loop.top)}, where its loop starts")
    defined, maybe = defined_before(script, loop.top), maybe_set(script, loop.top)
    for name in needed:
        if name and name.partition(".")[0] not in defined:
            if name == names.optimizer and _made_within_rounds(script, loop, name):
                raise _trains_again(script, loop)
            if name not in maybe or name in (names.accelerator, *names.models[:1]):
                raise UnclearError(
                    f"{name} is made only under a condition, and the loop may begin without it"
                )
            names.maybe.append(name)
    return names


def at_top(script: Script, calls: list[Call], name: str) -> str:
    """Return what a name of the innermost function is called at the outermost loop. Raises UnclearError."""
    for call in calls:
        first, dot, rest = name.partition(".")
        parameters = call.function.params
        listed = [one.name.value for one in (*parameters.params, *parameters.kwonly_params)]
        if listed[:1] == ["self"] and is_method(script, call.function):
            if first == "self":
                name = (
                    (receiver(call.call) if isinstance(call.call.func.value, cst.Name) else "self")
                    + dot
                    + rest
                )
                continue
            listed = listed[1:]
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
    for node in assignments(script):
        ways = [node.value]
        if isinstance(node.value, cst.IfExp):
            ways = [node.value.body, node.value.orelse]
        for one in ways:
            if isinstance(one, cst.Call) and script.path(one.func).startswith("accelerate.Accelerator"):
                return dotted(node.targets[0])
    return ""


def _models(script: Script, loop: Loop, optimizer: str, region: list[Any]) -> list[str]:
    found: list[str] = []
    if loop.trainings is not None and is_own(script, loop.trainings, optimizer):
        found = called_models(script, loop.trainings, optimizer)
        if not found:
            function = loop.trainings.function
            name = f"{function.name.value}()" if function is not None else "it"
            raise UnclearError(
                f"the model that {optimizer} trains isn't an argument of {name}, which trains it several times"
            )
        return found
    assigned = [
        node.value for node in assignments(script) if any(dotted(one) == optimizer for one in node.targets)
    ]
    # Held by an object of its own.
    if not assigned and "." in optimizer and not optimizer.startswith("self."):
        assigned = sources_of(script, optimizer.rpartition(".")[0])
    for value in assigned:
        parts = [value]
        arguments = value.args if isinstance(value, cst.Call) else ()
        for argument in arguments:  # groups that were put together before
            parts += [
                node.value
                for node in assignments(script)
                if any(dotted(one) == dotted(argument.value) != "" for one in node.targets)
            ]
        named = [(part, name) for part in parts for name in _PARAMETERS.findall(script.code(part))]
        found += [model_part(script, one) for part, name in named for one in members_of(script, part, name)]
    if not found:  # its groups are made by a function that is given the model
        called = _called(script, loop, region)
        found = [name for name in _given(script, assigned) if name in called]
    if not found:  # made in a function of its own: what is put into training mode
        for node in [*region, *_functions_around(script, loop)]:
            for call in method_calls(script, "train", node):
                if receiver(call):
                    inside = any(node is call.function for call in loop.calls)
                    found.append(at_top(script, loop.calls, receiver(call)) if inside else receiver(call))
    if not found:
        names = ("model", "net", "network", "self.model", "self.net", "self.network")
        found = [name for name in names if made_by(script, name)]
        at = [one for one in script.around(loop.top) if isinstance(one, cst.FunctionDef)]
        unknown = [name for name in found if not is_known(script, name, loop.top)]
        if unknown and at and is_method(script, at[0]):  # made elsewhere, and given to the object
            found = [name for name in names if name.startswith("self.") and sources_of(script, name)][:1]
    if not found:
        raise UnclearError(f"the model that {optimizer} trains wasn't found")
    return _distinct(found)


def _given(script: Script, values: list[Any]) -> list[str]:
    """Return the names given to the calls that make some values, and to those that make what these are given."""
    found: list[str] = []
    for value in values:
        for name in [dotted(one.value) for one in value.args] if isinstance(value, cst.Call) else []:
            found.append(name)
            for source in sources_of(script, name) if name else []:
                found += [dotted(one.value) for one in source.args] if isinstance(source, cst.Call) else []
    return _distinct(name for name in found if name)


def _called(script: Script, loop: Loop, region: list[Any]) -> set[str]:
    """Return the variables that a loop calls, as it calls its model."""
    found = set()
    for node in region:
        inside = any(node is call.function for call in loop.calls)
        for name in {dotted(call.func) for call in script.all(cst.Call, node)} - {""}:
            try:
                found.add(at_top(script, loop.calls, name) if inside else name)
            except UnclearError:
                continue
    return {name for name in found if sources_of(script, name)}


def _functions_around(script: Script, loop: Loop) -> list[Any]:
    return [one for one in script.around(loop.top) if isinstance(one, cst.FunctionDef)]


def _made_within(script: Script, loop: Loop, name: str) -> bool:
    """Tell whether a function that the outermost loop calls makes it, anew in each round."""
    functions = [call.function for call in loop.calls[loop.crossed :]]
    return any(up in functions for source in sources_of(script, name) for up in script.around(source))


def _trains_again(script: Script, loop: Loop) -> UnclearError:
    where = f"a loop of trainings (line {script.line(loop.top)})"
    return UnclearError(f"its training is in {where}, and each needs a vault of its own")


def _made_within_rounds(script: Script, loop: Loop, name: str) -> bool:
    """Tell whether each round of the outermost loop makes it anew, and nothing else does."""
    ways = [list(script.around(source)) for source in sources_of(script, name)]
    return bool(ways) and all(loop.top in way for way in ways)


def _is_of_pass(script: Script, loop: Loop, name: str) -> bool:
    """Tell whether a name is set within an epoch alone, ahead of its batches."""
    places = [loop.outer, *(call.function for call in loop.calls[loop.crossed :])]
    ways = [list(script.around(source)) for source in sources_of(script, name)]
    return (
        loop.outer is not None
        and name.isidentifier()
        and bool(ways)
        and all(any(up is one for up in way for one in places) for way in ways)
        and not any(up is loop.inner for way in ways for up in way)
    )


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
