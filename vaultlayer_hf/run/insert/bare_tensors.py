"""Optimizers of tensors that no module holds: a temperature, an image, a prompt.

A Checkpointer saves by itself what an optimizer trains and no model holds, into the tensors that are there. So nobody
else may bring them back: by their names they would become others than the optimizer's.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted


def refuse_bare_tensors(script: Script, optimizer: str) -> None:
    """Raise UnclearError for an optimizer of tensors that no module holds, which no Accelerator saves."""
    for source in sources_of(script, optimizer):
        for name in _elements(script, source):
            if any(_is_tensor(script, value) for value in sources_of(script, name)):
                raise UnclearError(
                    f"line {script.line(source)} gives {optimizer} {name}, a tensor of no module, which the "
                    "Accelerator doesn't save: make it a Parameter of one"
                )


def trained_tensors(script: Script, optimizer: str) -> list[str]:
    """Return the names of what an optimizer is given beside ``model.parameters()``: tensors, and lists of them."""
    found: list[str] = []
    for source in sources_of(script, optimizer):
        if not isinstance(source, cst.Call) or not script.path(source.func).rpartition(".")[2][:1].isupper():
            continue  # a function that makes it may be given anything
        given = [one.value for one in source.args[:1]]
        found += [dotted(one) for one in given] + _elements(script, source)
        found += [dotted(one.value) for part in given for one in script.all(cst.DictElement, part)]
        found += [
            dotted(call.func.value)  # list(prompts.values())
            for part in given
            for call in script.all(cst.Call, part)
            if isinstance(call.func, cst.Attribute) and call.func.attr.value in ("values", "items")
        ]
    return list(dict.fromkeys(name for name in found if name))


def trains_tensors_alone(script: Script, optimizer: str) -> bool:
    """Tell whether an optimizer is given tensors of no module, and nothing else."""
    sources = sources_of(script, optimizer)
    for source in sources:
        given = [one.value for one in source.args[:1]] if isinstance(source, cst.Call) else []
        lists = [
            other for one in given for other in (sources_of(script, dotted(one)) if dotted(one) else [one])
        ]
        for one in lists:
            if not isinstance(one, cst.List):
                return False
            values = [element.value for element in one.elements]
            if not values or not all(
                dotted(value) and any(_is_tensor(script, made) for made in sources_of(script, dotted(value)))
                for value in values
            ):
                return False
        if not lists:
            return False
    return bool(sources)


def _elements(script: Script, source: Any) -> list[str]:
    """Return the names in the lists that a call is given, be it by name."""
    lists = [one.value for one in source.args] if isinstance(source, cst.Call) else []
    lists = [other for one in lists for other in (sources_of(script, dotted(one)) if dotted(one) else [one])]
    return [name for part in lists for one in script.all(cst.Element, part) if (name := dotted(one.value))]


def _is_tensor(script: Script, value: Any) -> bool:
    """Tell whether an expression makes a tensor."""
    if not isinstance(value, cst.Call):
        return False
    path, method = (
        script.path(value.func),
        value.func.attr.value if isinstance(value.func, cst.Attribute) else "",
    )
    makes = re.search(r"^torch\.(?!nn\.(?!Parameter))[a-z_]+$|(?:^|\.)(?:Parameter|Variable)$", path)
    return bool(makes) or method in ("requires_grad_", "clone", "detach")
