"""Scripts that resume by themselves, beside us: where their loop begins then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk


def moved_starts(script: Script, top: Any, sources: Callable[[str], list[Any]]) -> list[str]:
    """Return the names in a loop's ``range(…)`` that the script's own resume may set.

    At several places; or where the epochs begin, from what it has loaded: ``range(start, 9)``.
    """
    walk = Walk(script)
    walk.expression(top.iter)
    found, first = [], _first_of(script, top)
    for name in walk.read_first:
        places = sources(name)
        conditional = [one for one in places if any(isinstance(up, cst.If) for up in script.around(one))]
        main = len(places) > 1 or ("." in name and bool(places))
        loaded = len(places) == 1 and name in first and isinstance(places[0], (cst.Subscript, cst.Call))
        if loaded or (main and conditional and not _is_option(script, places)):
            found.append(name)
    return found


def _first_of(script: Script, top: Any) -> set[str]:
    """Return the names that say where a loop over ``range(first, …)`` begins."""
    calls = [call for call in script.all(cst.Call, top.iter) if dotted(call.func) in ("range", "trange")]
    names = {dotted(call.args[0].value) for call in calls if len(call.args) > 1}
    return {name for name in names if name.isidentifier()}


def _is_option(script: Script, places: list[Any]) -> bool:
    """Tell whether a name is set from nothing but constants and other options, the same at each start."""
    loads = ("torch.load", "load_checkpoint", "load", "restore", "resume")
    walk = Walk(script)
    for one in places:
        walk.expression(one)
    loaded = {
        dotted(target)
        for node in assignments(script)
        if (
            isinstance(node.value, cst.Call)
            and script.path(node.value.func).rsplit(".", 1)[-1].startswith(loads)
        )
        or (isinstance(node.value, cst.Subscript) and "load" in script.code(node.value))
        for target in node.targets
    }
    texts = "".join(script.code(one) for one in places)
    return not (loaded & set(walk.read_first)) and "load" not in texts
