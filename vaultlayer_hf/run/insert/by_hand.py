"""Scripts without an optimizer, which change the parameters of a model by themselves."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import Script, dotted

_CHANGES = ("add_", "sub_", "addcmul_", "copy_")


def steps_by_hand(script: Script) -> list[tuple[Any, str]]:
    """Return the loops in which a script changes the parameters of one model by their gradients, and that model.

        for p in model.parameters():
            p.data.add_(p.grad, alpha=-rate)

    None where it does so with several models.
    """
    found = []
    for loop in script.all(cst.For):
        call = loop.iter
        if not isinstance(call, cst.Call) or not isinstance(loop.target, cst.Name):
            continue
        model, _, method = dotted(call.func).rpartition(".")
        if method != "parameters" or not model or ".grad" not in script.code(loop.body):
            continue
        own = loop.target.value
        items = script.all(cst.SubscriptElement, loop.body)
        if any(one.value == own for item in items for one in script.all(cst.Name, item)):
            continue  # what it keeps by parameter, a velocity, is found by the parameter itself
        changed = [
            one for one in script.all(cst.AugAssign, loop.body) if dotted(one.target) in (own, f"{own}.data")
        ]
        changed += [
            one
            for one in script.all(cst.Call, loop.body)
            if dotted(one.func) in {f"{own}{part}.{way}" for part in ("", ".data") for way in _CHANGES}
        ]
        if changed:
            found.append((loop, model))
    return found if len({model for _, model in found}) == 1 else []
