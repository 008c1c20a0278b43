"""Loops that never set their gradients to zero: these go on from step to step, and are saved with a checkpoint."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.source import Script, libcst_or_error


def lasting_gradients(script: Script, loop: Loop, names: Names) -> str:
    """Return the model whose gradients go on from one step to the next; ``""`` where they don't.

    Raises UnclearError where it isn't seen that they are those of one model alone.
    """
    cst: Any = libcst_or_error()
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
        return ""
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
    return model
