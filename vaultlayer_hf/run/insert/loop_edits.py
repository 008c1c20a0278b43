"""Scripts with a training loop of their own: a Checkpointer in front of it, and three calls of it.

One file, because the edits of one loop share its names, and each depends on which of the others is made.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert.calls import is_method, method_calls, receiver
from vaultlayer_hf.run.insert.clock_stops import refuse_clocks
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.drawn_loaders import drawn_loaders, stream_edits
from vaultlayer_hf.run.insert.draws import refuse_fresh_data
from vaultlayer_hf.run.insert.frameworks import (
    loop_elsewhere,
    refuse_environments,
    refuse_frameworks,
    refuse_spread_elsewhere,
)
from vaultlayer_hf.run.insert.handed_on import handed_on
from vaultlayer_hf.run.insert.lasting_gradients import lasting_gradients
from vaultlayer_hf.run.insert.left_pass import leave_again
from vaultlayer_hf.run.insert.local_rounds import find_local_rounds
from vaultlayer_hf.run.insert.loop import Loop, UnclearError, find_loop
from vaultlayer_hf.run.insert.loop_limits import refuse_what_cannot_resume
from vaultlayer_hf.run.insert.loop_names import Names, at_top, find_names
from vaultlayer_hf.run.insert.loop_variables import Variables, find_variables
from vaultlayer_hf.run.insert.maybe_set import maybe_set, set_first
from vaultlayer_hf.run.insert.pass_down import pass_down
from vaultlayer_hf.run.insert.pieces import carry_lines, ends_with_break, innermost, key_of, places, prepared
from vaultlayer_hf.run.insert.remarks import loop_remarks
from vaultlayer_hf.run.insert.saved_states import option_in
from vaultlayer_hf.run.insert.source import Edit, Script, dotted, libcst_or_error, new_import
from vaultlayer_hf.run.insert.step_end import StepEnd, synced
from vaultlayer_hf.run.insert.trainers import TrainerEdit

LINES = (
    "from vaultlayer_hf import Checkpointer",
    "ckpt = Checkpointer({vault}, model=model, optimizer=optimizer)  # scheduler=… where there is one",
    "for step in range(ckpt.resume(), total_steps):  # the first step still to do",
    "    ...; ckpt.step(loss=loss)  # at the very end of a step",
    "ckpt.finish()  # behind the loop",
)


def plan_loop(script: Script, vault: str) -> TrainerEdit:
    """Return the edits for a script with a loop; ``vault`` is the code that names the vault."""
    try:
        refuse_frameworks(script)
        if method_calls(script, "backward"):
            refuse_environments(script)
        loop = find_loop(script)
        return _Planner(script, loop, find_names(script, loop), vault).plan()
    except (AttributeError, IndexError, KeyError, StopIteration, RecursionError) as error:
        # A shape of code that nobody has thought of: it is left alone, and a run that asked in passing goes on.
        what = type(error).__name__
        return TrainerEdit(reason=f"its loop is written in a way that isn't understood ({what})")
    except UnclearError as error:
        trains = bool(method_calls(script, "backward"))
        return TrainerEdit(reason=f"{error}{'' if trains else loop_elsewhere(script)}", trains=trains)


class _Planner:
    """Puts the edits together, for one loop."""

    def __init__(self, script: Script, loop: Loop, names: Names, vault: str) -> None:
        self.script, self.loop, self.names, self.vault = script, loop, names, vault
        self.ckpt = script.free("ckpt", "checkpointer", "vault_ckpt")
        if any(is_method(script, call.function) for call in loop.calls):
            self._of_object()
        self.start = script.free("start", "start_step", "first_step")
        self.edits: list[Edit] = []
        self.variables = Variables()
        self.while_ends = False
        self.rounds = find_local_rounds(script, loop)

    def _of_object(self) -> None:
        """The loop is spread over methods: the Checkpointer is an attribute of their object."""
        script, loop = self.script, self.loop
        home = next((one for one in script.around(loop.top) if isinstance(one, _cst().FunctionDef)), None)
        on_self = all(
            receiver(call.call) == "self" for call in loop.calls if is_method(script, call.function)
        )
        if home is None or not is_method(script, home) or not on_self:
            raise UnclearError("its loop is spread over methods that are called from outside of their class")
        if not all(is_method(script, call.function) for call in loop.calls):
            raise UnclearError("its loop is spread over methods and functions")
        self.ckpt = f"self.{self.ckpt}"

    def plan(self) -> TrainerEdit:
        script, loop = self.script, self.loop
        if not self.names.accelerator:
            refuse_spread_elsewhere(script)
        drawn = drawn_loaders(script, loop)
        refuse_what_cannot_resume(script, loop, drawn)
        refuse_clocks(script, loop)
        refuse_fresh_data(script, loop, self.names.models)
        counter = self._counter()
        known = (
            self._known() | {one.holder for one in drawn if one.holder} | ({counter} if counter else set())
        )
        self.variables = find_variables(script, loop, self.names, known)
        self.variables.objects += [one.stream for one in drawn]
        self.edits += stream_edits(script, drawn)
        self.names.others += [one for one in self.variables.models if one not in self.names.others]
        self.edits.append(
            new_import(
                script,
                "from vaultlayer_hf import Checkpointer",
                "Saves a loop to a vault and resumes it from there.",
            )
        )
        if self._counts_steps():
            self._range(counter)
        elif loop.outer is None and type(loop.inner).__name__ == "While":
            if not counter and not self.variables.loop:
                raise UnclearError(f"the loop in line {script.line(loop.inner)} has no counter of its steps")
            self._create(counter)
            self._while(counter)
        else:
            self._create(counter)
            self._data()
            kept = {counter, *self.variables.loop, *self.variables.in_pass}
            self.edits += leave_again(script, loop, self.ckpt, kept)
            self._in_pass()
            self._epochs()
        met = self.rounds.met if self.rounds else ""
        self.edits += StepEnd(script, loop, self.names, self.ckpt, self.variables, met).plan()
        where = maybe_set(script, loop.top) | self.variables.maybe
        self.edits += set_first(script, [*self.names.maybe, *self.variables.maybe], where)
        why = "Saves the end, waits until it is committed, and notes that the run is done."
        self.edits.append(script.lines_behind(loop.top, [f"{self.ckpt}.finish()"], why))
        for node in script.all(_cst().Return, loop.top, nested=False):
            line = next(one for one in script.around(node) if isinstance(one, _cst().SimpleStatementLine))
            self.edits.append(script.lines_before(line, [f"{self.ckpt}.finish()"], why))
        return TrainerEdit(self.edits, loop_remarks(script, loop, self.while_ends))

    def _known(self) -> set[str]:
        """Return the objects that the Checkpointer is given, under all the names that they have on the way."""
        names, script = self.names, self.script
        found = {names.accelerator, names.optimizer, names.scheduler, *names.models, *names.others}
        found |= set(self.loop.optimizers) | set(names.tensors) | {self.ckpt}
        if names.accelerator:
            found |= prepared(script)
        source = innermost(self.loop.inner.iter) if isinstance(self.loop.inner, _cst().For) else None
        if source is not None and dotted(source):
            found.add(at_top(script, self.loop.calls[self.loop.crossed :], dotted(source)))
        return found - {""}

    def _while(self, counter: str) -> None:
        """Have a loop that is left at its end, ``if step > last: break``, be left at once where that holds already."""
        script, loop, cst = self.script, self.loop, _cst()
        if script.code(loop.inner.test) not in ("True", "1"):
            self.while_ends = True
            return
        last = loop.inner.body.body[-1]
        if not isinstance(last, cst.If) or last.orelse is not None or not ends_with_break(last):
            return
        names = {one.value for one in script.all(cst.Name, last.test)}
        known = defined_before(script, loop.top) - self.variables.unset
        if names <= known and not script.all(cst.Call, last.test) and names & {counter, *self.variables.loop}:
            start, end = script.span(loop.inner.test)
            why = "A run that is started again after its end is at its end."
            self.edits.append(Edit(start, end, f"not ({script.code(last.test)})", why))
            self.while_ends = True

    def _in_pass(self) -> None:
        reset, again, left = self.variables.reset, self.variables.again, self.variables.left
        names = [*self.variables.in_pass, *left]
        if not names and not reset and not again:
            return
        inner = self.loop.inner
        lines = [f"{' = '.join(left)} = None"] if left else []
        lines += carry_lines(self.ckpt, names, in_pass=True) if names else []
        lines += (
            carry_lines(self.ckpt, [*reset, *again], assign=False, in_pass=True) if reset or again else []
        )
        if self.loop.phase:
            lines = [f"if {self.loop.phase}:", *(f"    {line}" for line in lines)]
        listed = ", ".join([*names, *reset, *(key for key, _ in again)])
        why = f"Brought back where a pass through the data goes on: {listed}."
        self.edits.append(self.script.lines_before(inner, lines, why))

    def _counts_steps(self) -> bool:
        """Tell whether the loop is one over step numbers, each with one step."""
        loop = self.loop
        each = loop.outer is None and loop.condition is None and not loop.only_if
        each = each and not loop.sync and self.rounds is None
        return each and self._range_call() is not None

    def _range_call(self) -> Any:
        if type(self.loop.inner).__name__ != "For":
            return None
        call = innermost(self.loop.inner.iter)
        name = dotted(call.func) if isinstance(call, _cst().Call) else ""
        return call if name in ("range", "trange") and 1 <= len(places(call)) <= 2 else None

    def _range(self, counter: str) -> None:
        call = self._range_call()
        positional = places(call)
        first = "0" if len(positional) == 1 else self.script.code(positional[0].value)
        self._create(self.start, also=counter)
        at = self.start
        if first != "0":
            at += f" + {first}" if first.isidentifier() or first.isdigit() else f" + ({first})"
        start, end = self.script.span(positional[0].value)
        why = "Goes on from the first step that is still to do."
        if len(positional) == 1:
            self.edits.append(Edit(start, start, f"{at}, ", why))
        else:
            self.edits.append(Edit(start, end, at, why))

    def _create(self, start: str, also: str = "") -> None:
        names, vault = self.names, self.vault
        if names.accelerator:
            given = [f"accelerator={names.accelerator}"]
        else:
            given = [f"model={names.models[0]}"] if names.models else []
            given += [f"optimizer={names.optimizer}"] if names.optimizer else []
            given += [f"scheduler={names.scheduler}"] if names.scheduler else []
        lines = [f"{self.ckpt} = Checkpointer({', '.join([*([vault] if vault else []), *given])})"]
        known = prepared(self.script) if names.accelerator else set()
        others = [*names.models[1:], *names.others]
        if names.accelerator and names.scheduler and names.scheduler not in known:
            others.insert(0, names.scheduler)
        taken = {"model", "optimizer", "scheduler"}
        for name in others:
            if name not in known:
                lines.append(f'{self.ckpt}.add("{key_of(name, taken)}", {name})')
        lasting = lasting_gradients(self.script, self.loop, names)
        for model in lasting:
            key = key_of(f"{model}_gradients" if len(lasting) > 1 else "gradients", taken)
            lines.append(f'{self.ckpt}.add("{key}", Checkpointer.gradients({model}))')
        for path in self.variables.files:
            stem = re.search(r"(\w+)(?:\.\w+)*[\"']\s*\)*$", path)
            key = key_of(stem[1] if stem else "file", taken)
            lines.append(f'{self.ckpt}.add("{key}", Checkpointer.file({path}))')
        lines.append(f"{start} = {self.ckpt}.resume()" if start else f"{self.ckpt}.resume()")
        if also:
            lines.append(f"{also} = {start}")
        option = option_in(self.script, self.loop.top)
        if option:  # what was asked for is what the vault's run has begun with
            lines += [f"if {start or lines.pop()}:", f"    {option} = None"]
        kept = self.variables
        lines += [f"{name} = None" for name in kept.loop if name in kept.unset]
        if kept.loop:
            lines += carry_lines(self.ckpt, kept.loop)
        if kept.objects:
            lines += carry_lines(self.ckpt, kept.objects, assign=False)
        if self.rounds is not None:
            lines += carry_lines(self.ckpt, [self.rounds.model, names.optimizer], assign=False)
        what = (
            "all that the accelerator has prepared"
            if names.accelerator
            else ", ".join(filter(None, [*names.models[:1], names.optimizer, names.scheduler]))
        )
        why = (
            f"Saved, and brought back by resume(): {what}"
            f"{''.join(f', {name}' for name in [*others, *kept.files, *kept.loop, *kept.objects])}, random numbers"
            f"{'' if self._by_steps() else ', the position in the data'}."
        )
        self.edits.append(self.script.lines_before(self.loop.top, lines, why))

    def _by_steps(self) -> bool:
        """Tell whether the loop goes over step numbers, or by a counter, and not over batches."""
        is_while = self.loop.outer is None and type(self.loop.inner).__name__ == "While"
        return is_while or self._counts_steps()

    def _data(self) -> None:
        """The batches come through the Checkpointer, which knows how many of them are behind it."""
        script, loop, cst = self.script, self.loop, _cst()
        if not isinstance(loop.inner, cst.For):
            raise UnclearError(f"the while loop in line {script.line(loop.inner)} is within another loop")
        source = innermost(loop.inner.iter)
        if isinstance(source, cst.Call) and (loader := handed_on(script, source)) is not None:
            source = innermost(loader)
        start, end = script.span(source)
        why = "Goes on behind the batches that were trained on."
        phase, opening = loop.phase, f"{self.ckpt}.batches("
        closing = f") if {phase} else {script.code(source)})" if phase else ")"
        self.edits += [
            Edit(start, start, f"({opening}" if phase else opening, why),
            Edit(end, end, closing, why),
        ]
        for call in script.all(cst.Call, loop.inner.iter):
            if dotted(call.func) == "enumerate":
                positional = places(call)
                numbered = next((one for one in call.args if one.keyword is not None), None)
                value = (
                    numbered.value
                    if numbered is not None
                    else positional[1].value
                    if len(positional) > 1
                    else None
                )
                at = script.span(value if value is not None else positional[0].value)[1]
                done = (
                    f"({self.ckpt}.batches_done if {phase} else 0)" if phase else f"{self.ckpt}.batches_done"
                )
                text = f" + {done}" if value is not None else f", {done}"
                self.edits.append(Edit(at, at, text, why))
        if loop.outer is not None:
            self.edits += pass_down(script, loop, self.ckpt)

    def _epochs(self) -> None:
        outer = self.loop.outer
        if outer is None or not isinstance(outer, _cst().For):
            return
        start, end = self.script.span(outer.iter)
        why = "Leaves out the epochs that are over."
        self.edits += [Edit(start, start, f"{self.ckpt}.epochs(", why), Edit(end, end, ")", why)]

    def _counter(self) -> str:
        """Return the variable of the same function that is 0 before the loop and counts the steps; ``""`` for none."""
        script, loop, cst = self.script, self.loop, _cst()
        if len(loop.calls) > loop.crossed or self.rounds is not None or loop.only_if:
            return ""
        guarded = (
            [one for statement in loop.suite.body for one in synced(script, statement)] if loop.sync else []
        )
        for statement in guarded if loop.sync else loop.suite.body:
            for node in script.all(cst.AugAssign, statement, nested=False):
                name = dotted(node.target)
                plain = isinstance(statement, cst.SimpleStatementLine)
                if plain and isinstance(node.operator, cst.AddAssign) and script.code(node.value) == "1":
                    before = [
                        one
                        for one in script.all(cst.Assign)
                        if any(dotted(target.target) == name for target in one.targets)
                    ]
                    counted = [one for one in script.all(cst.AugAssign) if dotted(one.target) == name]
                    if (
                        len(before) == len(counted) == 1
                        and script.code(before[0].value) == "0"
                        and not _within(script, before[0], loop.top)
                    ):
                        return name
        return ""


def _cst() -> Any:
    return libcst_or_error()


def _within(script: Script, node: Any, outer: Any) -> bool:
    return any(one is outer for one in script.around(node))
