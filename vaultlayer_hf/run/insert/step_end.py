"""Where a step of a loop ends, with all that belongs to it: there the Checkpointer is told."""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.asked_again import changes_answer
from vaultlayer_hf.run.insert.calls import loop_of, method_calls, receiver
from vaultlayer_hf.run.insert.early_ends import early_ends, ends_behind, keeps_gradients
from vaultlayer_hf.run.insert.left_pass import leaves_pass
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.loop_variables import Variables
from vaultlayer_hf.run.insert.source import Edit, Script
from vaultlayer_hf.run.insert.walk import Walk

_PURE = re.compile(
    r"(?:^|\.)(?:isfinite|isnan|isinf|all|any|len|int|float|bool|abs|min|max|hasattr|getattr|isinstance|item|"
    r"get_rank|is_initialized)$"
)
"""Calls that say the same when they are asked twice."""


class StepEnd:
    """The end of a step of one loop.

    Args:
        script, loop, names: what is edited.
        ckpt: what the Checkpointer is called.
        variables: what a checkpoint keeps beside the objects.
        met: the condition under which ranks that train by themselves have just met; ``""`` where none do.
        last: the condition under which the step is the last one of its pass, though batches may be left; ``""``: none.
        rounds: whether a resume goes on by the number of steps as that of a round, so that each round has to be a step.
    """

    def __init__(
        self,
        script: Script,
        loop: Loop,
        names: Names,
        ckpt: str,
        variables: Variables,
        met: str = "",
        last: str = "",
        *,
        rounds: bool = False,
    ) -> None:
        self.script, self.loop, self.names, self.ckpt, self.variables = script, loop, names, ckpt, variables
        self.met, self.last, self.rounds = met, last, rounds
        self.edits: list[Edit] = []

    def plan(self) -> list[Edit]:
        """Return the edits that note the end of a step, behind all that belongs to it."""
        script, tail = self.script, self.loop.tail
        last = next(
            (number for number, one in enumerate(tail) if ends_behind(script, self.loop, one)), len(tail)
        )
        for one in tail[max(last, 1) :]:
            if any(receiver(call) for call in method_calls(script, "step", one)):
                raise UnclearError(f"line {script.line(tail[last])} may leave the step before its end")
        leaves = leaves_pass(script, self.loop)
        given = [f"loss={self.names.loss}"] if self.names.loss else []
        given += [f"last={self.last}"] if self.last else []
        call = f"{self.ckpt}.step({', '.join(given)})"
        why = "A step is done, with all that belongs to it: saves when it is time."
        self._before_early_ends(why)
        if self._at_end_of_round(call, why):
            if self.loop.only_if:
                raise UnclearError(f"line {script.line(tail[0])} decides itself which batches make a step")
            if leaves:
                raise UnclearError(f"line {script.line(leaves[0])} may leave the step before its end")
            return self.edits
        guards = [self.met] if self.met else []
        if self.loop.phase and self.loop.suite is self.loop.inner.body:
            guards.append(self.loop.phase)
        if self.loop.only_if:
            guards.append(self._still_holds(self.loop.only_if))
        if leaves or not last or self._changed_by(tail[last:]):
            synced_only = self.loop.sync and self.loop.condition is None
            under = [f"{self.names.accelerator}.sync_gradients", *guards] if synced_only else guards
            self._before_each_end(tail[last:], call, why, leaves, under)
            last = len(tail)
        end = tail[last - 1]
        if self.loop.sync and self.loop.condition is None:
            inside = synced(script, end)
            if inside:
                end = inside[-1]
            else:
                guards.insert(0, f"{self.names.accelerator}.sync_gradients")
        lines = _under(guards, call)
        self.edits.append(script.lines_behind(end, lines, why))
        return self.edits

    def _still_holds(self, condition: str) -> str:
        """Return a condition that the step is given, where the end of the step finds it as it was."""
        walk = Walk(self.script)
        walk.block(self.loop.tail[1:])
        names = {one.group() for one in re.finditer(r"[A-Za-z_][\w.]*", condition)}
        if names & {*walk.written, *walk.changed}:
            raise UnclearError(
                f"the condition of the step in line {self.script.line(self.loop.tail[0])} changes after it"
            )
        return condition

    def _changed_by(self, statements: list[Any]) -> set[str]:
        """Return what of the loop's variables and objects these statements change."""
        kept = self.variables
        walk = Walk(self.script)
        walk.block(statements)
        touched = {*walk.written, *walk.changed, *(on for on, _, _ in walk.calls)}
        return touched & {*kept.loop, *kept.in_pass, *kept.objects, *kept.models, *kept.contents}

    def _before_each_end(
        self, statements: list[Any], call: str, why: str, leaves: list[Any], guards: list[str]
    ) -> None:
        """Note the step wherever these statements leave it: what they change on the way belongs to it, too.

        ``leaves``: those that leave the pass through the data as well: the step is its last one. ``guards``: conditions
        under which there is a step at all.
        """
        script, loop = self.script, self.loop
        for node in [end for one in statements for end in ends_behind(script, loop, one)]:
            if not isinstance(node, cst.Return) and loop_of(script, node) is not loop.inner:
                continue
            last = any(node is one for one in leaves)
            said = f"{call[:-1]}{', ' if self.names.loss else ''}last=True)" if last else call
            self._note_before(node, guards, said, why)

    def _note_before(self, end: Any, guards: list[str], call: str, why: str) -> None:
        """Note the step ahead of a statement that leaves it, and behind what stands on its line before it."""
        script = self.script
        line = script.parent(end)
        if len(line.body) == 1 and isinstance(script.parent(line), cst.IndentedBlock):
            self.edits.append(script.lines_before(line, _under(guards, call), why))
            return
        if guards:
            raise UnclearError(f"line {script.line(end)} leaves a step on the line of its condition")
        start = script.span(end)[0]
        self.edits.append(Edit(start, start, f"{call}; ", why))

    def _before_early_ends(self, why: str) -> None:
        """Note the step where a round ends behind the first of several optimizers: its loss may have no value yet.

        Where rounds are counted, also one that ends ahead of the optimizer's step.
        """
        script, loop = self.script, self.loop
        if loop.suite is not loop.inner.body or (len(loop.optimizers) < 2 and not self.rounds):
            return
        first = loop.inner.body if self.rounds else loop.steps[0]
        begin, end = script.span(first)[0], script.span(loop.tail[0])[1]
        noted = ends_behind(script, loop, loop.tail[0])
        for node in early_ends(script, loop):
            if not begin < script.span(node)[0] < end or any(node is one for one in noted):
                continue
            if self.rounds and keeps_gradients(script, loop, node):
                raise UnclearError(
                    f"line {script.line(node)} ends a round behind backward(), whose gradients the next one adds to"
                )
            guards = [f"{self.names.accelerator}.sync_gradients"] if loop.sync else []
            self._note_before(node, guards, f"{self.ckpt}.step()", why)

    def _at_end_of_round(self, call: str, why: str) -> bool:
        """Note the step at the end of the round, under its condition, where what follows it changes variables."""
        script, loop = self.script, self.loop
        node = loop.suite
        behind: list[Any] = []
        guards: list[str] = []
        conditions: list[Any] = []
        asked: list[Any] = []
        if loop.sync and loop.condition is None:
            guards.append(f"{self.names.accelerator}.sync_gradients")
        functions = list(loop.calls[: loop.crossed])
        while node is not loop.inner:
            up = script.parent(node)
            if isinstance(up, cst.FunctionDef):
                if not functions:
                    return False
                up = functions.pop(0).call
            elif isinstance(up, cst.If):
                test = script.code(up.test)
                asked += script.all(cst.Call, up.test)
                conditions.append(up)
                guards.append(test if up.body is node else f"not ({test})")
            body = getattr(up, "body", ())
            if isinstance(body, (list, tuple)) and any(one is node for one in body):
                behind += body[next(number for number, one in enumerate(body) if one is node) + 1 :]
            node = up
        changed = self._changed_by(behind)
        if not changed:
            return False
        for one in asked:
            if not _PURE.search(script.code(one.func)):
                raise UnclearError(
                    f"line {script.line(one)} asks {script.code(one.func)}() which batches make a step, and "
                    f"{sorted(changed)[0]} changes behind that: asked once more, it may say another thing"
                )
        within = [] if loop.suite is loop.inner.body else list(loop.suite.body)
        moved = changes_answer(script, conditions, [*within, *behind])
        leaves = any(ends_behind(script, loop, one) for one in behind)
        if moved and not leaves and (noted := self._note_answer(conditions)):
            guards[-1] = noted
        elif moved or leaves:
            walk = Walk(script)
            walk.block(behind)
            name = sorted(changed)[0]
            raise UnclearError(
                f"line {walk.written.get(name, script.line(behind[0]))} changes {name} after the end of the step: "
                "move it ahead of optimizer.step()"
            )
        self.edits.append(script.lines_behind(loop.inner.body.body[-1], _under(guards, call), why))
        return True

    def _note_answer(self, conditions: list[Any]) -> str:
        """Give what a condition says a name, for the end of the round; return it, or ``""`` for several conditions."""
        script = self.script
        one = conditions[0]
        if len(conditions) > 1 or script.parent(one) is not self.loop.inner.body or self.loop.crossed:
            return ""
        if not any(one.body is up for up in [self.loop.suite, *script.around(self.loop.suite)]):
            return ""
        name = script.free("stepped", "has_stepped", "makes_step")
        start, end = script.span(one.test)
        why = "Notes whether this round makes a step, for its end."
        self.edits += [Edit(start, start, f"{name} := (", why), Edit(end, end, ")", why)]
        return name


def _under(guards: list[str], call: str) -> list[str]:
    """Return the lines of a call under some conditions."""
    return [f"if {' and '.join(guards)}:", f"    {call}"] if guards else [call]


def synced(script: Script, statement: Any) -> list[Any]:
    """Return the statements that an ``if accelerator.sync_gradients:`` guards, and nothing else."""
    if not isinstance(statement, cst.If) or statement.orelse is not None:
        return []
    alone = script.code(statement.test).endswith(".sync_gradients") and " " not in script.code(statement.test)
    return list(statement.body.body) if alone and isinstance(statement.body, cst.IndentedBlock) else []
