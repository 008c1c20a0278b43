"""What a loop's loss is called where a step ends."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import method_calls, receiver
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk


def loss_name(script: Script, loop: Loop) -> str:
    """Return the name of the loss, where the end of the step can see it and nothing deletes it."""
    home = next((one for one in script.around(loop.suite) if isinstance(one, cst.FunctionDef)), script.module)
    calls = method_calls(script, "backward", home)
    for call in reversed(calls):
        value: Any = call.func.value
        functions = (cst.FunctionDef, cst.Lambda)
        around = next((one for one in script.around(call) if isinstance(one, functions)), script.module)
        if around is not home:
            continue  # of a closure: its names are its own
        if (
            call.args
            and call.args[0].keyword is None
            and re.search("accel|fabric|engine|scaler", receiver(call))
        ):
            value = call.args[0].value  # accelerator.backward(loss)
        elif isinstance(value, cst.Call) and value.args and _scales(value):
            value = value.args[0].value  # scaler.scale(loss).backward()
        name = dotted(value)
        if name and "." not in name and any(one is loop.inner for one in script.around(call)):
            return name if name in _defined_at_end(script, loop) else ""
    return ""


def _scales(call: Any) -> bool:
    """Tell whether a call returns the loss that it is given, scaled: ``F.mse_loss(pred, y)`` is given no loss."""
    return isinstance(call.func, cst.Attribute) and call.func.attr.value in ("scale", "scale_loss")


def _defined_at_end(script: Script, loop: Loop) -> set[str]:
    """Return the names that are surely set where a step of a loop ends, in the function of the step."""
    walk = Walk(script)
    for one in reversed([loop.tail[-1], *script.around(loop.tail[-1])]):
        block = script.parent(one)
        body = getattr(block, "body", ())
        if not isinstance(body, (list, tuple)) or not any(one is other for other in body):
            continue
        position = next(number for number, other in enumerate(body) if other is one)
        if any(up is loop.inner for up in script.around(one)):
            walk.block(body[: position + (one is loop.tail[-1])])
    return walk.defined
