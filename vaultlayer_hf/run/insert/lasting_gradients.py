"""Loops whose gradients go on from one step to the next: these are saved with a checkpoint.

They are never set to zero; or those of one optimizer are, behind its step, and another one's backward() adds to them.
"""

from __future__ import annotations

import re

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import method_calls, receiver, sources_of
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.source import Script, dotted


def lasting_gradients(script: Script, loop: Loop, names: Names) -> list[str]:
    """Return the models whose gradients go on from one step to the next.

    Raises UnclearError where it isn't seen that they are those of one model alone.
    """
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    parts, coming = [loop.inner], [loop.inner]
    while coming:
        for call in script.all(cst.Call, coming.pop()):
            function = functions.get(script.code(call.func).rsplit(".", 1)[-1])
            if function is not None and not any(function is one for one in parts):
                parts.append(function)
                coming.append(function)
    text = "".join(script.code(one) for one in parts)
    if re.search(r"zero_grad|\.grad\s*=|grad\.zero_|autograd\.grad|gradients?\b", text):
        return names.models if not names.accelerator and _added_to(script, loop) else []
    model = names.models[0] if len(names.models) == 1 else ""
    given = [
        script.code(source.args[0].value)
        for source in sources_of(script, names.optimizer)
        if isinstance(source, cst.Call) and source.args
    ]
    ranks = any(path.startswith("torch.distributed") for path in script.imports.values())
    alone = len(loop.optimizers) < 2 and given == ([f"{model}.parameters()"] if names.optimizer else [])
    if names.accelerator or ranks or not model or not alone:
        raise UnclearError(
            f"nothing in the loop of line {script.line(loop.inner)} sets the gradients to zero (zero_grad), so they go "
            "on from step to step, and a checkpoint hasn't got them"
        )
    return [model]


def _added_to(script: Script, loop: Loop) -> bool:
    """Tell whether one of several optimizers has its gradients cleared behind its step, and not ahead of it."""
    for name in loop.optimizers if len(loop.optimizers) > 1 else ():
        cleared = [
            script.line(call)
            for call in method_calls(script, "zero_grad", loop.inner)
            if receiver(call) == name
        ]
        stepped = [
            script.line(call)
            for call in loop.steps
            if name in (receiver(call), *(dotted(one.value) for one in call.args[:1]))
        ]
        if cleared and stepped and max(cleared) > max(stepped):
            return True
    return False
