"""Epochs that open their loader by themselves, count their updates, and draw the batches of each with next().

    for epoch in range(3):
        batches = iter(loader)
        for update in range(updates):
            samples = [next(batches) for _ in range(4)]

The batches come through the Checkpointer like those of any other pass; the number of the update comes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, sources_of
from vaultlayer_hf.run.insert.loop import Loop
from vaultlayer_hf.run.insert.pass_down import pass_down
from vaultlayer_hf.run.insert.pieces import carry_lines, innermost, places
from vaultlayer_hf.run.insert.random_calls import quiet
from vaultlayer_hf.run.insert.source import Edit, Script, dotted
from vaultlayer_hf.run.insert.streams import is_iterator
from vaultlayer_hf.run.insert.walk import Walk


@dataclass
class PassByNext:
    """The pass of such an epoch.

    Attributes:
        opening: the call ``iter(loader)``.
        number: the variable that numbers the updates.
        count: the expression that says how many there are, in ``range(…)``.
    """

    opening: Any
    number: str
    count: Any

    def last(self, script: Script) -> str:
        """Return the condition of the last update: a resume behind it draws no more, and must not look for a batch."""
        code = script.code(self.count)
        plain = re.fullmatch(r"[\w.()\[\]+*/% -]+", code) and not re.search(
            r"\b(?:if|and|or|not|in|is)\b", code
        )
        return f"{self.number} + 1 == {code if plain else f'({code})'}"


def pass_by_next(script: Script, loop: Loop) -> PassByNext | None:
    """Return the pass of a loop whose epochs draw so; None where not all that happens to it is seen."""
    inner = loop.inner
    plain = not loop.crossed and loop.condition is None and not (loop.sync or loop.phase or loop.only_if)
    if not plain or not isinstance(loop.outer, cst.For) or not isinstance(inner, cst.For):
        return None
    head = innermost(inner.iter)
    counts = isinstance(head, cst.Call) and dotted(head.func) in ("range", "trange")
    if not counts or len(head.args) != 1 or len(places(head)) != 1 or not isinstance(inner.target, cst.Name):
        return None
    nexts = [call for call in script.all(cst.Call, inner.body) if dotted(call.func) == "next"]
    names = {dotted(call.args[0].value) for call in nexts if len(call.args) == 1}
    if len(names) != 1 or any(len(call.args) != 1 for call in nexts):
        return None
    (name,) = names
    opening = _opening(script, loop, name, nexts)
    count = places(head)[0].value
    written = _written(script, inner.body)
    read = {inner.target.value, *(one.value for one in script.all(cst.Name, count))}
    if opening is None or read & set(written) or not quiet(script, count):
        return None
    if any(_leaves(script, inner, kind) for kind in (cst.Break, cst.Continue, cst.Return)):
        return None
    return PassByNext(opening, inner.target.value, count)


def pass_by_next_edits(script: Script, loop: Loop, ckpt: str, found: PassByNext) -> list[Edit]:
    """Return the edits by which such a pass goes on behind what is done; ``ckpt``: what the Checkpointer is called."""
    start, end = script.span(found.opening.args[0].value)
    why = "Goes on after the batches that were trained on."
    edits = [Edit(start, start, f"{ckpt}.batches(", why), Edit(end, end, ")", why)]
    why = "Goes on with the first update that is still to do."
    lines = [f"{found.number} = -1", *carry_lines(ckpt, [found.number], in_pass=True)]
    at = script.span(found.count)[0]
    edits += [
        script.lines_before(loop.inner, lines, why),
        Edit(at, at, f"{found.number} + 1, ", why),
    ]
    return edits + pass_down(script, loop, ckpt)


def _opening(script: Script, loop: Loop, name: str, nexts: list[Any]) -> Any:
    """Return the call that opens the iterator of this name, ahead of the updates of each epoch; None for any other."""
    opened = sources_of(script, name)
    used = [one for one in script.all(cst.Name) if one.value == name]
    if not name.isidentifier() or len(opened) != 1 or len(used) != 1 + len(nexts):
        return None
    opening = opened[0]
    if not isinstance(opening, cst.Call) or dotted(opening.func) != "iter" or len(opening.args) != 1:
        return None
    loader = dotted(opening.args[0].value)
    made = sources_of(script, loader)
    given = not made and loader.isidentifier()  # a parameter
    if not loader or not (made or given) or any(is_iterator(script, one) for one in made):
        return None
    if any(up is loop.outer for one in made for up in script.around(one)):
        return None
    line = script.parent(script.parent(opening))
    block = list(getattr(script.parent(loop.inner), "body", ()))
    if not any(one is line for one in block) or function_of(script, opening) is not function_of(
        script, loop.inner
    ):
        return None
    at, end = (next(number for number, one in enumerate(block) if one is node) for node in (line, loop.inner))
    if at > end or any(isinstance(up, cst.Try) for call in nexts for up in script.around(call)):
        return None
    # torch draws a seed where an iterator is opened, and the order where its first batch is asked for.
    between = [*block[at + 1 : end], *_ahead_of(script, list(loop.inner.body.body), nexts)]
    return opening if all(quiet(script, one) for one in between) else None


def _ahead_of(script: Script, body: list[Any], nexts: list[Any]) -> list[Any]:
    """Return the statements ahead of the first one that asks for a batch."""
    holds = [any(up is one for call in nexts for up in script.around(call)) for one in body]
    return body[: holds.index(True)] if True in holds else body


def _written(script: Script, body: Any) -> dict[str, int]:
    walk = Walk(script)
    walk.block(body.body)
    return walk.written


def _leaves(script: Script, inner: Any, kind: Any) -> bool:
    """Tell whether a statement of this kind leaves a round of the updates."""
    loops = (cst.For, cst.While)
    return any(
        kind is cst.Return or next(up for up in script.around(one) if isinstance(up, loops)) is inner
        for one in script.all(kind, inner.body, nested=False)
    )
