"""The loops around the one over the batches: that of the epochs, and that of the trainings where there are several."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of, is_made_once, is_plain, is_started, repeated_by
from vaultlayer_hf.run.insert.calls import sources_of
from vaultlayer_hf.run.insert.loop import Call, Loop, UnclearError
from vaultlayer_hf.run.insert.pieces import innermost
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.trainings import Trainings, in_calls, in_rounds


def _loops_around(script: Script, node: Any) -> list[Any]:
    return [one for one in script.around(node) if isinstance(one, (cst.For, cst.While))]


def _phase(script: Script, loop: Loop, middle: Any) -> str:
    """Return the condition on an epoch's phase under which its batches train; ``""`` where the middle loop has none."""
    if not isinstance(middle, cst.For) or not isinstance(middle.target, cst.Name) or loop.calls:
        return ""
    for one in script.around(loop.steps[0]):
        if one is loop.inner:
            break
        if isinstance(one, cst.If) and isinstance(one.test, cst.Comparison):
            names = {name.value for name in script.all(cst.Name, one.test)}
            if names == {middle.target.value}:
                return script.code(one.test)
    return ""


def find_outer(script: Script, loop: Loop) -> None:
    """Find the loop of the epochs, and the trainings of a script that has several. Raises UnclearError."""
    found: list[Any] = []
    calls: list[Call] = []
    node = loop.inner
    while (node := script.parent(node)) is not None:
        if isinstance(node, (cst.For, cst.While)):
            found.append(node)
            if len(found) == 1:
                loop.outer = node
                loop.calls += calls
        elif isinstance(node, cst.FunctionDef):
            places = calls_of(script, node)
            if is_plain(script, node) and len(places) == 1:
                calls.append(Call(node, places[0]))
                node = places[0]
            elif not any(_loops_around(script, place) for place in places) and is_made_once(script, places):
                again = repeated_by(script, node)
                if again is not None:
                    raise UnclearError(
                        f"line {script.line(again)} gives {node.name.value}(), which holds the loop, to what calls it "
                        "again and again, and each training needs a vault of its own"
                    )
                if not places and not is_started(script, node):
                    raise UnclearError(
                        f"nothing in it calls {node.name.value}(), which holds the loop: who calls it, and how often, "
                        "isn't seen"
                    )
                break
            elif (several := in_calls(script, node, places)) is not None:
                loop.trainings = several
                break
            else:
                where = ", ".join(str(script.line(place)) for place in places)
                raise UnclearError(
                    f"its loop is in {node.name.value}(), which lines {where} call more than once"
                )
    turns = isinstance(loop.inner, cst.For) and not loop.calls
    if turns and loop.optimizer in {one.value for one in script.all(cst.Name, loop.inner.target)}:
        raise UnclearError(
            f"line {script.line(loop.inner)} goes through optimizers of a list, which have no names of their own"
        )
    if len(found) == 2 and (phase := _phase(script, loop, found[0])):
        loop.phase, loop.outer = phase, found[1]
    elif len(found) > 1 and not any(
        up is found[1]
        for source in sources_of(script, loop.optimizer or loop.by_hand)
        for up in script.around(source)
    ):
        lines = ", ".join(str(script.line(one)) for one in reversed([loop.inner, *found]))
        raise UnclearError(
            f"its step is in {len(found) + 1} loops (lines {lines}), and only epochs and their batches are followed"
        )
    elif len(found) > 1:
        several = in_rounds(script, found[1], found[0])
        if several is None or loop.trainings is not None or len(found) > 2:
            raise UnclearError(
                f"its training is in a loop of trainings (line {script.line(found[1])}), and each needs a vault of its "
                "own, for which no single number tells them apart, as that of for fold in range(…) does"
            )
        loop.trainings = several
    elif found and loop.trainings is None and (several := _runs(script, loop, found[0])) is not None:
        loop.trainings, loop.outer = several, None
        del loop.calls[loop.crossed :]


def _runs(script: Script, loop: Loop, around: Any) -> Trainings | None:
    """Return the trainings of a loop that makes the optimizer anew in each round, ahead of so many steps; else None."""
    head = innermost(loop.inner.iter) if isinstance(loop.inner, cst.For) else None
    counted = isinstance(head, cst.Call) and dotted(head.func) in ("range", "trange")
    made = sources_of(script, loop.optimizer) if loop.optimizer else []
    ahead = [list(script.around(one)) for one in made]
    anew = all(any(up is around for up in way) and not any(up is loop.inner for up in way) for way in ahead)
    return in_rounds(script, around, loop.inner) if counted and made and anew else None
