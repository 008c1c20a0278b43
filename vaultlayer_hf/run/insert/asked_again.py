"""Conditions that are asked once more behind the statements that they decide on: whether these change the answer."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import made_by
from vaultlayer_hf.run.insert.own_classes import COUNTS, GROWS, changes_itself, classes_of
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import Walk


def changes_answer(script: Script, conditions: list[Any], statements: list[Any]) -> bool:
    """Tell whether some statements may change what the conditions of these ``if`` statements say."""
    nodes = [node for one in conditions for node in script.all((cst.Name, cst.Attribute), one.test)]
    read = {dotted(one) for one in nodes if not isinstance(script.parent(one), cst.Attribute)} - {""}
    walk = Walk(script)
    walk.block(statements)
    changed = {*walk.written, *walk.changed}
    changed |= {on for on, method, _ in walk.calls if on and changes_object(script, on, method)}
    return any(overlap(one, other) for one in read for other in changed)


def changes_object(script: Script, on: str, method: str) -> bool:
    """Tell whether a call of a method changes the object that it is called on."""
    if GROWS.fullmatch(method) or COUNTS.fullmatch(method):
        return True
    classes = classes_of(script)
    kinds = [classes[one] for one in made_by(script, on) if one in classes]
    return any(changes_itself(script, kind, method, classes) for kind in kinds)


def overlap(one: str, other: str) -> bool:
    """Tell whether two names are of one object, or of an object and what is in it: ``state`` and ``state.n``."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
