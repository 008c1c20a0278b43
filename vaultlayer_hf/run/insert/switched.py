"""Attributes and globals that a loop sets on its way, and that only code out of its sight reads.

if epoch == 90:
    dataset.mosaic = False  # read by __getitem__(); a start in a later epoch wouldn't set it
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, function_of, method_calls, sources_of
from vaultlayer_hf.run.insert.changed_modules import prefixes
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within
from vaultlayer_hf.run.insert.named_values import NamedValues
from vaultlayer_hf.run.insert.out_of_sight import OF_PARTS
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import dotted
from vaultlayer_hf.run.insert.switched_unseen import is_plain, is_unseen, kinds_of
from vaultlayer_hf.run.insert.walk import Walk, local_names


def switched(
    named: NamedValues, walk: Walk, there: Collection[str], objects: list[str], before: set[str]
) -> tuple[list[str], set[str]]:
    """Return the names of these, and those of them that may not be there at the start.

    ``walk``: of the outermost loop; ``there``: what is read in it, or comes back anyway.

    ``objects``: those that come back with all their attributes; ``before``: names that are set ahead of the loop.

    What is set in each epoch or batch, ahead of what reads it, needs no coming back. Raises UnclearError for an
    attribute that may not be there at the start, and for one that gets more than plain values where no class is seen.
    """
    always = _always_set(named)
    found: list[str] = []
    unset: set[str] = set()
    for name, line in walk.written.items():
        kept = any(one in objects for one in prefixes(name)[1:])
        if name in there or name in always or kept or not named.is_variable(name):
            continue
        if name.partition(".")[0] not in before:
            continue
        if "." not in name:
            found += [name] if _is_read_by_function(named, name) else []
            continue
        read, begins = _of_class(named, name)
        if read and not begins:
            raise UnclearError(
                f"line {line} sets {name} on the way, and whether it is there at the start isn't seen: set it in "
                "__init__()"
            )
        if read:
            found.append(name)
        elif is_unseen(named, walk, name):
            if not is_plain(named, name):
                raise UnclearError(
                    f"line {line} sets {name} on the way, and what reads it isn't seen: set it in each epoch, ahead of "
                    "its batches"
                )
            found.append(name)
            if not _set_ahead(named, name):
                unset.add(name)
    for name in found:
        owner, _, attribute = name.rpartition(".")
        if any(f"{one}.{attribute}" in found for one in prefixes(owner)[1:]):
            raise UnclearError(
                f"line {walk.written[name]} sets {name} or {attribute} of what holds it, and which is there isn't seen"
            )
    return found, unset


def _always_set(named: NamedValues) -> set[str]:
    """Return what each epoch surely sets ahead of its batches, or each batch ahead of its backward()."""
    script, loop = named.script, named.loop
    found: set[str] = set()
    for one in (loop.top, loop.inner):
        targets = script.all((cst.Name, cst.Attribute), one.target) if isinstance(one, cst.For) else []
        found |= {dotted(each) for each in targets}
    if loop.outer is not None:
        again = Walk(script)
        again.block(ahead(script, loop))
        again.block(ahead_within(script, loop))
        found |= again.defined
    first = Walk(script)
    for statement in loop.inner.body.body:
        if method_calls(script, "backward", statement):
            break
        first.statement(statement)
    return found | first.defined


def _is_read_by_function(named: NamedValues, name: str) -> bool:
    """Tell whether a function reads a variable of the module that the loop sets."""
    script = named.script
    home = function_of(script, named.loop.top)
    if home is not None and not any(
        item.name.value == name for one in script.all(cst.Global, home.body) for item in one.names
    ):
        return False
    for function in script.all(cst.FunctionDef):
        if function is home or any(up is function for up in script.around(named.loop.top)):
            continue
        if name in parameters_of(function) | local_names(script, function):
            continue
        for one in script.all(cst.Name, function.body):
            up = script.parent(one)
            other = getattr(up, "attr", None) is one or getattr(up, "keyword", None) is one
            if one.value == name and not other:
                return True
    return False


def _of_class(named: NamedValues, name: str) -> tuple[bool, bool]:
    """Tell whether a class of the script's own reads an attribute of its objects, and whether they begin with it."""
    owner, _, attribute = name.rpartition(".")
    if attribute in OF_PARTS and any(one in named.names.models for one in prefixes(owner)[1:]):
        return True, True
    classes = [one for path, one in named.classes.items() if "." not in path]
    kinds = [one for one in kinds_of(named, owner) if one is not None]
    reads = begins = False
    for home, node in kinds or (classes if owner.partition(".")[0] != owner else []):
        ways = [f"{one}.{attribute}" for one in ("self", "cls", node.name.value)]
        own = [one for one in home.all(cst.Attribute, node) if dotted(one) in ways]
        read = [one for one in own if not _is_assigned_to(home, one)]
        reads = reads or bool(read)
        begins = begins or (bool(read) and begins_with(home, node, attribute))
    return reads, begins or _set_ahead(named, name)


def is_begun(named: NamedValues, name: str) -> bool:
    """Tell whether an attribute is there ahead of the loop: set by ``__init__()``, a class, or the module."""
    script, attribute = named.script, name.rpartition(".")[2]
    if _set_ahead(named, name) or not name.startswith("self."):
        return True
    around = [one for one in script.around(named.loop.top) if isinstance(one, cst.ClassDef)]
    return any(begins_with(script, one, attribute) for one in around)


def _set_ahead(named: NamedValues, name: str) -> bool:
    """Tell whether the loop's function sets an attribute ahead of it, or the module, or an ``__init__()``."""
    script, top = named.script, named.loop.top
    for one in sources_of(script, name):
        function = function_of(script, one)
        if any(up is top for up in script.around(one)):
            continue
        if function is None or function.name.value == "__init__":
            return True
        if function is function_of(script, top) and script.span(one)[0] < script.span(top)[0]:
            return True
    return False


def _is_assigned_to(home: Any, node: Any) -> bool:
    """Tell whether something is only assigned to, be it as one of several."""
    before = node
    for up in home.around(node):
        if isinstance(up, cst.AnnAssign):
            return before is up.target
        if isinstance(up, cst.AssignTarget):
            return True
        if not isinstance(up, (cst.Element, cst.Tuple, cst.List)):
            return False
        before = up
    return False


def begins_with(home: Any, node: Any, attribute: str) -> bool:
    """Tell whether objects of a class have an attribute from their begin: by ``__init__()``, the class, or a method."""
    for one in assignments(home, node, fields=True):
        function = function_of(home, one.node)
        named = {dotted(part) for target in one.targets for part in _parts(target)}
        if f"self.{attribute}" in named and function is not None and function.name.value == "__init__":
            return True
        if attribute in named and function is None:
            return True
    return any(one.name.value == attribute for one in home.all(cst.FunctionDef, node))


def _parts(target: Any) -> list[Any]:
    listed = isinstance(target, (cst.Tuple, cst.List))
    return [one.value for one in target.elements] if listed else [target]
