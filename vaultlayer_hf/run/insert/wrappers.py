"""Classes of a script's own around an optimizer: what calls their objects steps it.

    optimizer = Scheduled(torch.optim.Adam(model.parameters()))    loss_scaler = NativeScaler()
    optimizer.step_and_update_lr()                                 loss_scaler(loss, optimizer, update_grad=…)

The call is the step then. The optimizer inside is saved, and the object around it comes back with its attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, made_by, method_calls, receiver
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script, dotted


@dataclass(frozen=True)
class WrappedStep:
    """A step of an optimizer by an object of a class of the script's own.

    Attributes:
        call: of that object, or of a method of it.
        optimizer: what the optimizer is called there: ``wrapper.optimizer``, or what the call is given.
        only_if: the code of the condition under which the call steps it, of those that it is given; ``""``: each time.
    """

    call: Any
    optimizer: str
    only_if: str


def wrapped_step(script: Script, steps: list[tuple[Any, str]]) -> WrappedStep | None:
    """Return the step that leads to the one optimizer's step in a class; None where it isn't seen to be so.

    ``steps``: the calls that step an optimizer by its name, and those names.
    """
    inside = [(call, name, home) for call, name in steps if (home := _class_of(script, call)) is not None]
    if len(inside) != 1:
        return None
    step, name, home = inside[0]
    method = next((one for one in script.around(step) if isinstance(one, cst.FunctionDef)), None)
    if method is None or script.parent(script.parent(method)) is not home or method.decorators:
        return None
    calls = _calls_from_outside(script, home, method)
    rest = [call for call, _ in steps if call is not step and call not in calls]
    if len(calls) != 1 or rest:
        return None
    given = _given(calls[0], method)
    only_if = _conditions(script, step, method, given)
    if only_if is None:
        return None
    first, _, attribute = name.partition(".")
    if first == "self" and attribute.isidentifier() and _is_set_once(script, home, attribute):
        around = receiver(calls[0]) if method.name.value != "__call__" else dotted(calls[0].func)
        return WrappedStep(calls[0], f"{around}.{attribute}", only_if)
    if name in parameters_of(method) and dotted(given.get(name)):
        return WrappedStep(calls[0], dotted(given[name]), only_if)
    return None


def _class_of(script: Script, node: Any) -> Any:
    """Return the class around a node; None for one that trains by itself, in a loop or by ``self`` alone."""
    home = next((one for one in script.around(node) if isinstance(one, cst.ClassDef)), None)
    if home is None or script.parent(home) is not script.module or script.all(cst.While, home):
        return None
    loops = [one for one in script.around(node) if isinstance(one, (cst.For, cst.While))]
    bases = [dotted(one.value) for one in home.bases]
    return None if loops or any(one != "object" for one in bases) else home


def _calls_from_outside(script: Script, home: Any, method: Any) -> list[Any]:
    name, kind = method.name.value, home.name.value
    if name == "__call__":
        found = [one for one in script.all(cst.Call) if kind in made_by(script, dotted(one.func) or "?")]
    else:
        found = [one for one in method_calls(script, name) if kind in made_by(script, receiver(one) or "?")]
    own = [one for one in method_calls(script, name, home) if receiver(one) == "self"]
    return [] if own else found


def _given(call: Any, method: Any) -> dict[str, Any]:
    """Return what a call gives each parameter of a method, or its default."""
    parameters = method.params
    listed = [*parameters.posonly_params, *parameters.params][1:]
    found = {one.name.value: one.default for one in (*listed, *parameters.kwonly_params)}
    placed = [one.value for one in call.args if one.keyword is None and not one.star]
    found |= dict(zip([one.name.value for one in listed], placed, strict=False))
    found |= {one.keyword.value: one.value for one in call.args if one.keyword is not None}
    return {name: value for name, value in found.items() if value is not None}


def _conditions(script: Script, step: Any, method: Any, given: dict[str, Any]) -> str | None:
    """Return the condition under which a method steps, of what it is given; None for one that only it knows."""
    found = []
    before = step
    for one in script.around(step):
        if one is method:
            break
        if isinstance(one, (cst.Else, cst.Try, cst.Finally, cst.ExceptHandler)):
            return None
        if isinstance(one, cst.If):
            value = given.get(dotted(one.test))
            if one.body is not before or value is None or dotted(one.test) not in parameters_of(method):
                return None
            if script.all(cst.Call, value):
                return None
            if script.code(value) != "True":
                found.append(script.code(value))
        before = one
    leaves = [
        one
        for one in script.all(cst.Return, method.body, nested=False)
        if script.span(one)[0] < script.span(step)[0]
    ]
    return None if leaves else " and ".join(f"({one})" for one in found) if len(found) > 1 else "".join(found)


def _is_set_once(script: Script, home: Any, attribute: str) -> bool:
    """Tell whether an object keeps the optimizer that it was made with."""
    places = [
        one
        for node in assignments(script, home)
        for target in node.targets
        for one in script.all(cst.Attribute, target)
        if dotted(one) == f"self.{attribute}"
    ]
    functions = [
        next(up for up in script.around(one) if isinstance(up, cst.FunctionDef)).name.value for one in places
    ]
    return functions == ["__init__"]
