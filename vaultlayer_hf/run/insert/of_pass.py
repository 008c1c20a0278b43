"""What belongs to one pass through the data, and is to be brought back right ahead of the batches where a pass goes on.

What an epoch sets ahead of its batches, be it under a condition, is set again there; what it moves on, moves on again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from vaultlayer_hf.run.insert.ahead_of_batches import again_objects
from vaultlayer_hf.run.insert.changed_modules import prefixes, refuse_counting_ahead
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within, refuse_what_repeats
from vaultlayer_hf.run.insert.made_ahead import made_ahead
from vaultlayer_hf.run.insert.named_values import GENERATORS, NamedValues
from vaultlayer_hf.run.insert.own_classes import moves_on
from vaultlayer_hf.run.insert.pass_variables import (
    changed_in_pass,
    is_attribute,
    left_by_pass,
    names_of_pass,
    walk_of,
)
from vaultlayer_hf.run.insert.walk import Walk


@dataclass(frozen=True)
class Kept:
    """What comes back where the loop starts.

    Attributes:
        loop: names of variables; objects: of what stays the same object; others: of modules and contents.
        unset: of the variables, those that nothing sets before.
    """

    loop: list[str]
    objects: list[str]
    others: list[str]
    unset: set[str]


@dataclass
class OfPass:
    """The attributes of ``Variables`` of the same names."""

    in_pass: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)


def find_of_pass(named: NamedValues, kept: Kept, walk: Walk) -> OfPass:
    """Return what comes back once more ahead of the batches; ``walk``: of the outermost loop. Raises UnclearError."""
    script, loop, known = named.script, named.loop, named.known
    again = Walk(script)
    again.block(ahead(script, loop))
    again.block(ahead_within(script, loop))
    inner = walk_of(script, loop.inner)
    changed = changed_in_pass(named, inner)
    found = OfPass()
    trained = {*named.names.models, *named.names.others, named.names.optimizer, *loop.optimizers}
    counted = {one for one in known - trained if one.isidentifier()}
    lasts = [one for one in inner.written if one in kept.loop or one in counted]
    found.reset = _moved_ahead(named, again, inner, kept.objects, {*lasts, *changed})
    refuse_counting_ahead(named, again)
    listed = kept.loop + kept.objects + kept.others
    refuse_what_repeats(script, loop, again, listed, named.names, found.reset)
    found.again = again_objects(script, loop, named.names)
    carried = (set(kept.loop) & set(walk.read_first)) - set(again.written)
    found.in_pass = names_of_pass(named, carried, kept.unset, again)
    before = defined_before(script, loop.inner)
    # What an epoch sets without reading it first has the same value when a resume runs that code once more.
    begun = set(again.written) - set(again.read_first)
    moving = ({*lasts, *changed} - begun) | set(found.reset)
    made = [name for name in changed if name in again.written]
    for name in dict.fromkeys(made + made_ahead(script, loop, named.names, moving)):
        new = name.isidentifier() or is_attribute(named, name, before, again) or name in kept.loop
        new = new and name not in found.in_pass and name not in known
        if new and named.is_variable(name):
            found.in_pass.append(name)
    found.left = left_by_pass(named, again, kept.loop + found.in_pass)
    return found


def _moved_ahead(
    named: NamedValues, again: Walk, inner: Walk, objects: list[str], moving: Collection[str]
) -> list[str]:
    """Return the objects that an epoch sets back or moves on ahead of its batches: else a resume does so twice."""
    found = []
    for name in objects:
        calls = [(method, call) for on, method, call in again.calls if name in prefixes(on)]
        own = [named.classes[one] for one in named.made(name) if one in named.classes]
        if any(one in GENERATORS for one in named.made(name)):
            seeded = bool(calls) and calls[0][0] in ("seed", "manual_seed")
            moves, sets = bool(calls) and not seeded, seeded and name in inner.read_first
        else:
            moves = any(
                moves_on(named.script, kind, method, named.classes) for kind in own for method, _ in calls
            )
            sets = any(method in ("reset", "clear") for method, _ in calls)
            sets = sets or any(named.changes(name, method, call) for method, call in calls)
            sets = sets or any(one.startswith(f"{name}.") for one in again.written)
            sets = sets and name in moving
        if moves or sets:
            found.append(name)
    return found
