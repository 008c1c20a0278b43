"""What the variables of a loop over a list that stands in its head are, one after the other.

for meter, value in zip((loss_meter, bias_meter), values):      meter: loss_meter, bias_meter
for name, meter in [("loss", loss_meter), ("bias", bias_meter)]: meter: loss_meter, bias_meter
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.source import dotted

_SAME = ("list", "tuple", "reversed", "sorted")
"""What gives the same members, maybe in another order."""


def listed_names(target: Any, over: Any) -> dict[str, list[str]]:
    """Return for each variable of a loop the names that it stands for; ``over``: what the loop goes through."""
    found: dict[str, list[str]] = {}
    for member in _members(over):
        _match(target, member, found)
    return found


def _members(over: Any) -> list[Any]:
    """Return what a loop goes through, as far as its head says it: nodes, and tuples of nodes."""
    if isinstance(over, (cst.List, cst.Tuple, cst.Set)):
        return [one.value for one in over.elements]
    if not isinstance(over, cst.Call):
        return []
    name = dotted(over.func)
    given = [one.value for one in over.args]
    if name in _SAME and given:
        return _members(given[0])
    if name == "enumerate" and given:
        return [(None, one) for one in _members(given[0])]
    if name == "zip":
        columns = [_members(one) for one in given]
        longest = max(map(len, columns), default=0)
        return [tuple(one[row] if row < len(one) else None for one in columns) for row in range(longest)]
    if isinstance(over.func, cst.Attribute) and isinstance(over.func.value, cst.Dict):
        values = [one.value for one in over.func.value.elements]
        return [(None, one) for one in values] if over.func.attr.value == "items" else values
    return []


def _match(target: Any, member: Any, found: dict[str, list[str]]) -> None:
    if isinstance(target, (cst.Tuple, cst.List)):
        held = [one.value for one in member.elements] if isinstance(member, (cst.Tuple, cst.List)) else member
        if isinstance(held, (list, tuple)):
            for one, value in zip(target.elements, held, strict=False):
                _match(one.value, value, found)
    elif (
        isinstance(target, cst.Name)
        and member is not None
        and not isinstance(member, tuple)
        and dotted(member)
    ):
        found.setdefault(target.value, []).append(dotted(member))
