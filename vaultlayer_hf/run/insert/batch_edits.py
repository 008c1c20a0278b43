"""The loops over the epochs and their batches, led past what is done."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import assignments, function_of, sources_of
from vaultlayer_hf.run.insert.handed_on import handed_on
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import ahead, ahead_within
from vaultlayer_hf.run.insert.loop_variables import Variables
from vaultlayer_hf.run.insert.pass_down import pass_down
from vaultlayer_hf.run.insert.pieces import carry_lines, innermost, places
from vaultlayer_hf.run.insert.source import Edit, Script, dotted

_HIDES = ("zip", "map", "itertools.chain", "itertools.islice", "itertools.zip_longest")
"""What goes through loaders that nobody sees in it."""


def batch_edits(script: Script, loop: Loop, ckpt: str) -> list[Edit]:
    """Return the edits by which the batches come through the Checkpointer, which knows how many are behind it.

    ``ckpt``: what that is called. Raises UnclearError.
    """
    if not isinstance(loop.inner, cst.For):
        raise UnclearError(f"the while loop in line {script.line(loop.inner)} is within another loop")
    head = loop.inner.iter
    source = innermost(head)
    if (numbered := _numbered_ahead(script, loop, source)) is not None:
        head, source = numbered, innermost(numbered)
    if isinstance(source, cst.Call) and (loader := handed_on(script, source)) is not None:
        source = innermost(loader)
    _refuse_hidden_generators(script, loop, source)
    start, end = script.span(source)
    why = "Goes on after the batches that were trained on."
    phase, opening = loop.phase, f"{ckpt}.batches("
    closing = f") if {phase} else {script.code(source)})" if phase else ")"
    edits = [
        Edit(start, start, f"({opening}" if phase else opening, why),
        Edit(end, end, closing, why),
    ]
    for call in script.all(cst.Call, head):
        if dotted(call.func) == "enumerate":
            positional = places(call)
            numbered = next((one for one in call.args if one.keyword is not None), None)
            value = numbered.value if numbered is not None else None
            if value is None and len(positional) > 1:
                value = positional[1].value
            at = script.span(value if value is not None else positional[0].value)[1]
            done = f"({ckpt}.batches_done if {phase} else 0)" if phase else f"{ckpt}.batches_done"
            edits.append(Edit(at, at, f" + {done}" if value is not None else f", {done}", why))
    return edits + (pass_down(script, loop, ckpt) if loop.outer is not None else [])


def _refuse_hidden_generators(script: Script, loop: Loop, source: Any) -> None:
    """Raise UnclearError for a loader with a generator of its own within a ``zip``, whose loaders nobody sees."""
    if loop.outer is None or not isinstance(source, cst.Call) or script.path(source.func) not in _HIDES:
        return
    for name in dict.fromkeys(dotted(one.value) for one in source.args):
        for made in sources_of(script, name) if name else ():
            given = made.args if isinstance(made, cst.Call) else ()
            own = [one.value for one in given if one.keyword is not None and one.keyword.value == "generator"]
            if own and dotted(own[0]) != "None" and script.path(made.func).endswith("DataLoader"):
                raise UnclearError(
                    f"line {script.line(source)} goes through {name} within {dotted(source.func)}(), where the "
                    f"generator of {name} isn't seen, and a resume would draw the order of the first epoch again: have "
                    "torch's own seed draw it"
                )


def _numbered_ahead(script: Script, loop: Loop, source: Any) -> Any:
    """Return the ``enumerate(loader)`` that an epoch makes under a name ahead of its batches; else None.

    Nobody sees a loader within an enumerate, so the batches are led where that is made. A bar around it is assigned to
    the same name again: ``batches = tqdm(batches)``.
    """
    name = dotted(source)
    if not name.isidentifier() or loop.outer is None or loop.phase:
        return None
    home = function_of(script, loop.inner)
    made = [
        one
        for one in assignments(script)
        if name in map(dotted, one.targets) and function_of(script, one.node) is home
    ]
    first = made[0].value if made else None
    around = [one.value for one in made[1:]]
    on_it = all(
        isinstance(one, cst.Call) and one.args and dotted(one.args[0].value) == name for one in around
    )
    if not isinstance(first, cst.Call) or dotted(first.func) != "enumerate" or not on_it:
        return None
    up = next(one for one in script.around(first) if isinstance(one, cst.SimpleStatementLine))
    ahead_of_it = [*ahead(script, loop), *ahead_within(script, loop)]
    return first if any(up is one for one in ahead_of_it) else None


def epoch_edits(script: Script, loop: Loop, ckpt: str) -> list[Edit]:
    """Return the edits by which the epochs that are over are left out."""
    if not isinstance(loop.outer, cst.For):
        return []
    start, end = script.span(loop.outer.iter)
    why = "Leaves out the epochs that are over."
    return [Edit(start, start, f"{ckpt}.epochs(", why), Edit(end, end, ")", why)]


def pass_edits(script: Script, loop: Loop, ckpt: str, variables: Variables) -> list[Edit]:
    """Return the edits that bring variables back where a pass through the data goes on."""
    reset, again, left = variables.reset, variables.again, variables.left
    names = [*variables.in_pass, *left]
    if not names and not reset and not again and not variables.again_members:
        return []
    lines = [f"{' = '.join(left)} = None"] if left else []
    lines += carry_lines(ckpt, names, in_pass=True) if names else []
    lines += carry_lines(ckpt, [*reset, *again], assign=False, in_pass=True) if reset or again else []
    lines += [one.line(ckpt, in_pass=True) for one in variables.again_members]
    if loop.phase:
        lines = [f"if {loop.phase}:", *(f"    {line}" for line in lines)]
    listed = ", ".join(
        [*names, *reset, *(key for key, _ in again), *(one.name for one in variables.again_members)]
    )
    why = f"Brought back where a pass through the data goes on: {listed}."
    return [script.lines_before(loop.inner, lines, why)]
