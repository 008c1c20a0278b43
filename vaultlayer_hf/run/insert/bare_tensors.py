"""Optimizers of tensors that no module holds: these scripts are left alone."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.source import Script, dotted, libcst_or_error


def refuse_bare_tensors(script: Script, optimizer: str) -> None:
    """Raise UnclearError for an optimizer of tensors that no module holds: no ``state_dict()`` has them."""
    cst: Any = libcst_or_error()
    for source in sources_of(script, optimizer):
        lists = [one.value for one in source.args] if isinstance(source, cst.Call) else []
        lists = [
            other for one in lists for other in (sources_of(script, dotted(one)) if dotted(one) else [one])
        ]
        for name in [dotted(one.value) for part in lists for one in script.all(cst.Element, part)]:
            if name and any(_is_tensor(script, value) for value in sources_of(script, name)):
                raise UnclearError(
                    f"line {script.line(source)} gives {optimizer} {name}, a tensor of no module, which no "
                    "state_dict() has: make it a Parameter of one"
                )


def _is_tensor(script: Script, value: Any) -> bool:
    """Tell whether an expression makes a tensor."""
    cst: Any = libcst_or_error()
    if not isinstance(value, cst.Call):
        return False
    path, method = (
        script.path(value.func),
        value.func.attr.value if isinstance(value.func, cst.Attribute) else "",
    )
    makes = re.search(r"^torch\.(?!nn\.(?!Parameter))[a-z_]+$|(?:^|\.)(?:Parameter|Variable)$", path)
    return bool(makes) or method in ("requires_grad_", "clone", "detach")
