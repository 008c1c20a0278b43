"""Names that belong to one pass through the data: what a batch leaves to the next, and to the code behind the pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.maybe_set import maybe_set
from vaultlayer_hf.run.insert.named_values import NamedValues
from vaultlayer_hf.run.insert.read_behind import read_behind
from vaultlayer_hf.run.insert.source import Script
from vaultlayer_hf.run.insert.walk import Walk, local_names


def walk_of(script: Script, loop: Any) -> Walk:
    """Walk through the rounds of a loop."""
    walk = Walk(script)
    if isinstance(loop, cst.For):
        walk.expression(loop.iter)
        walk.read_first.clear()  # worked out once, before the first round
        walk.calls.clear()
        walk.target(loop.target)
    else:
        walk.expression(loop.test)
    walk.block(loop.body.body)
    walk.of_hooks()
    return walk


def changed_in_pass(named: NamedValues, inner: Walk) -> list[str]:
    """Return the objects that batches change in place: a meter, a list; ``inner``: the walk of the loop over them."""
    found = [name for name in inner.changed if named.keeps_values(name)]
    for on, method, call in inner.calls:
        if on and on not in named.known and named.sources(on) and named.is_variable(on):
            found += [on] if named.changes(on, method, call) else []
    return [name for name in dict.fromkeys(found) if name not in named.known and not named.is_module(name)]


def names_of_pass(named: NamedValues, carried: set[str], unset: set[str], again: Walk) -> list[str]:
    """Return the names that one batch leaves to the next; ``carried``: those that epochs do, too.

    ``again``: the walk of what an epoch does ahead of its batches: an attribute that it surely sets is one of the pass.
    """
    script, inner = named.script, named.loop.inner
    walk, behind = walk_of(script, inner), read_behind(script, named.loop, inner)
    before = defined_before(script, inner) | unset | set(maybe_set(script, inner))
    return [
        name
        for name in walk.written
        if (name in walk.read_first or name in behind)
        and name not in carried
        and name not in named.known
        and named.is_variable(name)
        and not _is_loop_variable(script, inner, name)
        and (
            is_attribute(named, name, before, again)
            if "." in name
            else name in before and _sets_before(script, inner, name)
        )
    ]


def is_attribute(named: NamedValues, name: str, before: set[str], again: Walk) -> bool:
    """Tell whether a name is that of an attribute which an epoch sets ahead of its batches.

    Raises UnclearError where it may not be there yet: it is set under a condition, and nowhere else.
    """
    if "." not in name or name not in again.written or name.partition(".")[0] not in before:
        return False
    script, loop = named.script, named.loop
    within = [loop.top, *(call.function for call in loop.calls)]
    ways = [list(script.around(one)) for one in named.sources(name)]
    if name in again.defined or any(not any(one in way for one in within) for way in ways):
        return True
    raise UnclearError(
        f"line {again.written[name]} sets {name} under a condition ahead of an epoch's batches, and whether it is "
        "there else isn't seen: set it ahead of the loop"
    )


def left_by_pass(named: NamedValues, again: Walk, kept: Collection[str]) -> list[str]:
    """Return the names that only a pass sets, and the code behind it reads: no batch may be left that sets them.

    ``again``: the walk of what an epoch does ahead of its batches; ``kept``: names that come back anyway.
    """
    script, inner = named.script, named.loop.inner
    walk, behind = walk_of(script, inner), read_behind(script, named.loop, inner)
    before = defined_before(script, inner) | set(maybe_set(script, inner)) | set(again.written)
    known = {*before, *kept, *named.known, *named.names.models, *named.names.others}
    return [
        name
        for name in walk.written
        if name.isidentifier()
        and name in behind
        and name not in known
        and name not in walk.read_first
        and named.is_variable(name)
        and _sets_before(script, inner, name)
    ]


def _sets_before(script: Script, loop: Any, name: str) -> bool:
    """Tell whether a name is the function's own, and not one of the module that it only reads."""
    functions = [one for one in script.around(loop) if isinstance(one, cst.FunctionDef)]
    return not functions or name in local_names(script, functions[0])


def _is_loop_variable(script: Script, loop: Any, name: str) -> bool:
    return isinstance(loop, cst.For) and any(one.value == name for one in script.all(cst.Name, loop.target))
