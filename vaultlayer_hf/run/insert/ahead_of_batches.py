"""What an epoch does ahead of its batches, and a resume within it does again: what must then come back once more.

The options of the optimizer's groups (a rate that is lowered at each epoch's start), schedules, and what is made of
weights or of these: right ahead of the batches all of it is brought back as it was at the save.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import is_method
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within, schedules
from vaultlayer_hf.run.insert.loop_names import Names, at_top
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script, dotted


def again_objects(script: Script, loop: Loop, names: Names) -> list[tuple[str, str]]:
    """Return (key, code) of what the code ahead of an epoch's batches may change of optimizers and schedules.

    Raises UnclearError for what isn't known ahead of the batches.
    """
    if loop.outer is None:
        return []
    own = own_names(script, loop, names)
    found: list[tuple[str, str]] = []
    direct = [*ahead(script, loop), *ahead_within(script, loop)]
    called = functions_led_to(script, loop, direct)
    stepped: list[tuple[str, int]] = []
    for name, line in [
        *schedules(script, direct, loop.outer),
        *(one for function in called for one in schedules(script, [function])),
    ]:
        if name not in own:
            raise UnclearError(
                f"{name}.step() in line {line} comes before an epoch's batches, where a resume within the epoch would "
                "repeat it: move it after them"
            )
        stepped.append((name, line))
    found += [(name, name) for name in dict.fromkeys(name for name, _ in stepped)]
    touched = [
        name
        for name in own
        if own[name] == "optimizer" and (stepped or _touches(script, direct, called, name))
    ]
    seen = set()
    for name in touched:
        outer = known_at_top(script, loop, name)
        if outer not in seen:
            seen.add(outer)
            found.append((f"{name}_options", f"Checkpointer.options({name})"))
    return found


def known_at_top(script: Script, loop: Loop, name: str) -> str:
    try:
        return at_top(script, loop.calls[loop.crossed :], name)
    except UnclearError:
        return name


def own_names(script: Script, loop: Loop, names: Names) -> dict[str, str]:
    """Return what the optimizers and schedules are called where the batches begin, each with what it is."""
    kinds = {names.scheduler: "schedule", names.optimizer: "optimizer"}
    kinds |= {name: "optimizer" for name in loop.optimizers if not loop.crossed}
    kinds |= {name: "schedule" for name in names.others if "sched" in name.lower()}
    kinds.pop("", None)
    inner = loop.calls[loop.crossed :]
    if not inner:
        return kinds
    function = inner[0].function
    found = {}
    for name in parameters_of(function):
        outer = known_at_top(script, loop, name)
        if outer in kinds:
            found[name] = kinds[outer]
    given = set(found.values())
    return found | {
        name: kind
        for name, kind in kinds.items()
        if kind not in given and name not in parameters_of(function)
    }


def functions_led_to(script: Script, loop: Loop, statements: list[Any]) -> list[Any]:
    """Return the functions of the script's own that some statements lead to, without those of the loop itself."""
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    found: list[Any] = []
    coming = list(statements)
    while coming:
        for call in script.all(cst.Call, coming.pop()):
            function = functions.get(script.code(call.func).rsplit(".", 1)[-1])
            if function is None or any(function is one for one in [*found, *script.around(loop.inner)]):
                continue
            if is_method(script, function) == isinstance(call.func, cst.Attribute):
                found.append(function)
                coming.append(function)
    return found


def _touches(script: Script, statements: list[Any], called: list[Any], optimizer: str) -> bool:
    """Tell whether the options of an optimizer's groups may be changed, be it by what the optimizer is given to."""
    for one in [*statements, *called]:
        for node in script.all(cst.Attribute, one):
            if node.attr.value == "param_groups":
                return True
    given = [call for one in statements for call in script.all(cst.Call, one)]
    return any(dotted(argument.value) == optimizer for call in given for argument in call.args)
