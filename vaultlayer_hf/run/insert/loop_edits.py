"""Scripts with a training loop of their own: a Checkpointer in front of it, and three calls of it.

One file, because the edits of one loop share its names, and each depends on which of the others is made.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.asked_ahead import answered_ahead
from vaultlayer_hf.run.insert.asked_bars import refuse_asked_bars
from vaultlayer_hf.run.insert.batch_edits import batch_edits, epoch_edits, pass_edits
from vaultlayer_hf.run.insert.between_trainings import refuse_left_behind, refuse_unfollowed
from vaultlayer_hf.run.insert.calls import is_method, method_calls, receiver
from vaultlayer_hf.run.insert.clock_stops import refuse_clocks
from vaultlayer_hf.run.insert.defined_before import defined_before
from vaultlayer_hf.run.insert.drawn_ahead import first_batches, refuse_pass_ahead
from vaultlayer_hf.run.insert.drawn_loaders import drawn_loaders, stream_edits
from vaultlayer_hf.run.insert.draws import fresh_values
from vaultlayer_hf.run.insert.find_loop import find_loop
from vaultlayer_hf.run.insert.frameworks import (
    loop_elsewhere,
    refuse_environments,
    refuse_frameworks,
    refuse_spread_elsewhere,
)
from vaultlayer_hf.run.insert.left_pass import leave_again
from vaultlayer_hf.run.insert.local_rounds import find_local_rounds
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_limits import refuse_remade, refuse_what_cannot_resume
from vaultlayer_hf.run.insert.loop_names import Names, at_top, find_names
from vaultlayer_hf.run.insert.loop_start import LoopStart
from vaultlayer_hf.run.insert.loop_variables import Variables, find_variables
from vaultlayer_hf.run.insert.maybe_set import maybe_set, set_first
from vaultlayer_hf.run.insert.out_of_sight import refuse_out_of_sight
from vaultlayer_hf.run.insert.passes_by_next import PassByNext, pass_by_next, pass_by_next_edits
from vaultlayer_hf.run.insert.pieces import ends_with_break, innermost, places, prepared
from vaultlayer_hf.run.insert.remarks import loop_remarks
from vaultlayer_hf.run.insert.source import Edit, Script, dotted, new_import
from vaultlayer_hf.run.insert.step_counter import step_counter
from vaultlayer_hf.run.insert.step_end import StepEnd
from vaultlayer_hf.run.insert.trainers import TrainerEdit
from vaultlayer_hf.run.insert.training_vaults import vaults_of

LINES = (
    "from vaultlayer_hf import Checkpointer",
    "ckpt = Checkpointer({vault}, model=model, optimizer=optimizer)  # scheduler=… where there is one",
    "for step in range(ckpt.resume(), total_steps):  # the first step still to do",
    "    ...; ckpt.step(loss=loss)  # at the very end of a step",
    "ckpt.finish()  # after the loop",
)


def plan_loop(script: Script, vault: str) -> TrainerEdit:
    """Return the edits for a script with a loop; ``vault`` is the code that names the vault."""
    try:
        refuse_frameworks(script)
        if method_calls(script, "backward"):
            refuse_environments(script)
        loop = find_loop(script)
        return _Planner(script, loop, find_names(script, loop), vault).plan()
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
        home = next((one for one in script.around(loop.top) if isinstance(one, cst.FunctionDef)), None)
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
        if self.names.accelerator:
            refuse_remade(script, loop)
        else:
            refuse_spread_elsewhere(script)
        drawn = drawn_loaders(script, loop)
        by_next = pass_by_next(script, loop) if not drawn else None
        opens = [call for one in drawn for call in one.opens]
        refuse_what_cannot_resume(script, loop, opens + ([by_next.opening] if by_next is not None else []))
        refuse_clocks(script, loop)
        refuse_asked_bars(script, loop)
        refuse_pass_ahead(script, loop)
        fresh = fresh_values(script, loop, self.names.models) + first_batches(script, loop)
        counter = step_counter(script, loop, rounds=self._counts_steps()) if self.rounds is None else ""
        if loop.trainings is not None:
            counted = self._counts_steps()
            refuse_unfollowed(
                script, loop, self.names, self.vault, drawn=bool(drawn or by_next), counted=counted
            )
        known = self._known(by_next) | {one.holder for one in drawn if one.holder}
        known |= {counter} if counter else set()
        refuse_out_of_sight(script, loop, self.names.models)
        self.variables = find_variables(script, loop, self.names, known)
        self.variables.loop += [name for name in fresh if name not in self.variables.loop]
        if by_next is not None:
            self.variables.left = [one for one in self.variables.left if one != by_next.number]
        remarks: list[str] = []
        if loop.trainings is not None:
            refuse_left_behind(script, loop, self.names, self.variables)
            self.vault, edits, remark = vaults_of(script, loop.trainings, self.vault)
            self.edits += edits
            remarks.append(remark)
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
            if by_next is None:
                self.edits += batch_edits(script, loop, self.ckpt)
                self.edits += answered_ahead(script, loop, self.ckpt, known)
            else:
                self.edits += pass_by_next_edits(script, loop, self.ckpt, by_next)
            kept = {counter, *self.variables.loop, *self.variables.in_pass, *self.variables.objects}
            self.edits += leave_again(script, loop, self.ckpt, kept)
            self.edits += pass_edits(script, loop, self.ckpt, self.variables)
            self.edits += epoch_edits(script, loop, self.ckpt)
        met = self.rounds.met if self.rounds else ""
        last = by_next.last(script) if by_next is not None else ""
        end = StepEnd(
            script, loop, self.names, self.ckpt, self.variables, met, last, rounds=self._counts_steps()
        )
        self.edits += end.plan()
        where = maybe_set(script, loop.top) | self.variables.maybe
        self.edits += set_first(script, [*self.names.maybe, *self.variables.maybe], where)
        why = "Saves the end, waits until it is committed, and notes that the run is done."
        self.edits.append(script.lines_behind(loop.top, [f"{self.ckpt}.finish()"], why))
        for node in script.all(cst.Return, loop.top, nested=False):
            line = next(one for one in script.around(node) if isinstance(one, cst.SimpleStatementLine))
            self.edits.append(script.lines_before(line, [f"{self.ckpt}.finish()"], why))
        return TrainerEdit(self.edits, remarks + loop_remarks(script, loop, self.while_ends))

    def _create(self, start: str, also: str = "") -> None:
        begin = LoopStart(
            self.script,
            self.loop,
            self.names,
            self.variables,
            self.ckpt,
            self.vault,
            self.rounds,
            self._by_steps(),
        )
        self.edits.append(begin.edit(start, also))

    def _known(self, by_next: PassByNext | None) -> set[str]:
        """Return the objects that the Checkpointer is given, under all the names that they have on the way."""
        names, script = self.names, self.script
        found = {names.accelerator, names.optimizer, names.scheduler, *names.models, *names.others}
        found |= set(self.loop.optimizers) | set(names.tensors) | {self.ckpt}
        if names.accelerator:
            found |= prepared(script)
        source = innermost(self.loop.inner.iter) if isinstance(self.loop.inner, cst.For) else None
        source = by_next.opening.args[0].value if by_next is not None else source
        if source is not None and dotted(source):
            found.add(at_top(script, self.loop.calls[self.loop.crossed :], dotted(source)))
        return found - {""}

    def _while(self, counter: str) -> None:
        """Have a loop that is left at its end, ``if step > last: break``, be left at once where that holds already."""
        script, loop = self.script, self.loop
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
        name = dotted(call.func) if isinstance(call, cst.Call) else ""
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

    def _by_steps(self) -> bool:
        """Tell whether the loop goes over step numbers, or by a counter, and not over batches."""
        is_while = self.loop.outer is None and type(self.loop.inner).__name__ == "While"
        return is_while or self._counts_steps()
