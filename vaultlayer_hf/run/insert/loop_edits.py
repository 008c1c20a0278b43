"""Scripts with a training loop of their own: a Checkpointer in front of it, and three calls of it."""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert.loop import Loop, UnclearError, find_loop, method_calls, receiver
from vaultlayer_hf.run.insert.loop_limits import refuse_what_cannot_resume
from vaultlayer_hf.run.insert.loop_names import Names, find_names
from vaultlayer_hf.run.insert.remarks import loop_remarks
from vaultlayer_hf.run.insert.source import Edit, Script, dotted, libcst_or_error, new_import
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
        loop = find_loop(script)
        return _Planner(script, loop, find_names(script, loop), vault).plan()
    except UnclearError as error:
        return TrainerEdit(reason=str(error), trains=bool(method_calls(script, "backward")))


class _Planner:
    """Puts the edits together, for one loop."""

    def __init__(self, script: Script, loop: Loop, names: Names, vault: str) -> None:
        self.script, self.loop, self.names, self.vault = script, loop, names, vault
        self.ckpt = script.free("ckpt", "checkpointer", "vault_ckpt")
        self.start = script.free("start", "start_step", "first_step")
        self.edits: list[Edit] = []

    def plan(self) -> TrainerEdit:
        script, loop = self.script, self.loop
        refuse_what_cannot_resume(script, loop)
        self.edits.append(
            new_import(
                script,
                "from vaultlayer_hf import Checkpointer",
                "Saves a loop to a vault and resumes it from there.",
            )
        )
        counter = self._counter()
        if self._counts_steps():
            self._range(counter)
        elif loop.outer is None and type(loop.inner).__name__ == "While":
            if not counter:
                raise UnclearError(f"the loop in line {script.line(loop.inner)} has no counter of its steps")
            self._create(counter)
        else:
            self._create(counter)
            self._data()
            self._epochs()
        self._step()
        why = "Saves the end, waits until it is committed, and notes that the run is done."
        self.edits.append(script.lines_behind(loop.top, [f"{self.ckpt}.finish()"], why))
        return TrainerEdit(self.edits, loop_remarks(script, loop, counter))

    def _counts_steps(self) -> bool:
        """Tell whether the loop is one over step numbers, each with one step."""
        loop = self.loop
        return (
            loop.outer is None and loop.condition is None and not loop.sync and self._range_call() is not None
        )

    def _range_call(self) -> Any:
        if type(self.loop.inner).__name__ != "For":
            return None
        call = _innermost(self.loop.inner.iter)
        name = dotted(call.func) if isinstance(call, _cst().Call) else ""
        return call if name in ("range", "trange") and 1 <= len(_places(call)) <= 2 else None

    def _range(self, counter: str) -> None:
        call = self._range_call()
        places = _places(call)
        first = "0" if len(places) == 1 else self.script.code(places[0].value)
        self._create(self.start, also=counter)
        at = self.start
        if first != "0":
            at += f" + {first}" if first.isidentifier() or first.isdigit() else f" + ({first})"
        start, end = self.script.span(places[0].value)
        why = "Goes on from the first step that is still to do."
        if len(places) == 1:
            self.edits.append(Edit(start, start, f"{at}, ", why))
        else:
            self.edits.append(Edit(start, end, at, why))

    def _create(self, start: str, also: str = "") -> None:
        names, vault = self.names, self.vault
        if names.accelerator:
            given = [f"accelerator={names.accelerator}"]
        else:
            given = [f"model={names.models[0]}", f"optimizer={names.optimizer}"]
            given += [f"scheduler={names.scheduler}"] if names.scheduler else []
        lines = [f"{self.ckpt} = Checkpointer({', '.join([*([vault] if vault else []), *given])})"]
        known = _prepared(self.script) if names.accelerator else set()
        others = [*names.models[1:], *names.others]
        if names.accelerator and names.scheduler and names.scheduler not in known:
            others.insert(0, names.scheduler)
        for name in others:
            if name not in known and not (names.accelerator and "." in name):
                lines.append(f'{self.ckpt}.add("{name.rsplit(".", 1)[-1]}", {name})')
        lines.append(f"{start} = {self.ckpt}.resume()" if start else f"{self.ckpt}.resume()")
        if also:
            lines.append(f"{also} = {start}")
        what = (
            "all that the accelerator has prepared"
            if names.accelerator
            else ", ".join([*names.models[:1], names.optimizer, *filter(None, [names.scheduler])])
        )
        why = (
            f"Saved, and brought back by resume(): {what}{''.join(f', {name}' for name in others)}, "
            "random numbers, the position in the data."
        )
        self.edits.append(self.script.lines_before(self.loop.top, lines, why))

    def _data(self) -> None:
        """The batches come through the Checkpointer, which knows how many of them are behind it."""
        script, loop, cst = self.script, self.loop, _cst()
        if not isinstance(loop.inner, cst.For):
            raise UnclearError(f"the while loop in line {script.line(loop.inner)} is within another loop")
        source = _innermost(loop.inner.iter)
        start, end = script.span(source)
        why = "Goes on behind the batches that were trained on."
        opening = Edit(start, start, f"{self.ckpt}.batches(", why)
        self.edits += [opening, Edit(end, end, ")", why)]
        for call in script.all(cst.Call, loop.inner.iter):
            if dotted(call.func) == "enumerate":
                places = _places(call)
                numbered = next((one for one in call.args if one.keyword is not None), None)
                value = (
                    numbered.value if numbered is not None else places[1].value if len(places) > 1 else None
                )
                at = script.span(value if value is not None else places[0].value)[1]
                text = f" + {self.ckpt}.batches_done" if value is not None else f", {self.ckpt}.batches_done"
                self.edits.append(Edit(at, at, text, why))
        if loop.outer is not None:
            self._pass_down()

    def _pass_down(self) -> None:
        """Give the Checkpointer to the functions between the loop of epochs and the loop of batches."""
        for call in self.loop.calls[self.loop.crossed :]:
            why = f"{call.function.name.value}() gets the Checkpointer."
            self._parameter(call.function, why)
            close = self.script.span(call.call)[1] - 1
            last = call.call.args[-1] if call.call.args else None
            at = self.script.span(last.value)[1] if last is not None else close
            self.edits.append(Edit(at, at, f"{', ' if last is not None else ''}{self.ckpt}={self.ckpt}", why))

    def _parameter(self, function: Any, why: str) -> None:
        cst, parameters = _cst(), function.params
        if parameters.star_kwarg is not None:
            at = self.script.text.rindex("**", 0, self.script.span(parameters.star_kwarg.name)[0])
            text = f"{self.ckpt}, " if self._has_star(function) else f"*, {self.ckpt}, "
            self.edits.append(Edit(at, at, text, why))
            return
        listed = [*parameters.posonly_params, *parameters.params, *parameters.kwonly_params]
        if isinstance(parameters.star_arg, cst.Param):
            listed.append(parameters.star_arg)
        star = "" if self._has_star(function) else "*, "
        if not listed:
            at = self.script.text.index("(", self.script.span(function.name)[1]) + 1
            self.edits.append(Edit(at, at, f"{star}{self.ckpt}", why))
            return
        at = max(self._end_of_parameter(one) for one in listed)
        self.edits.append(Edit(at, at, f", {star}{self.ckpt}", why))

    def _end_of_parameter(self, parameter: Any) -> int:
        parts = [parameter.name, parameter.annotation, parameter.default]
        return max(self.script.span(one)[1] for one in parts if one is not None)

    def _has_star(self, function: Any) -> bool:
        return not isinstance(function.params.star_arg, _cst().MaybeSentinel)

    def _epochs(self) -> None:
        outer = self.loop.outer
        if outer is None or not isinstance(outer, _cst().For):
            return
        start, end = self.script.span(outer.iter)
        why = "Leaves out the epochs that are over."
        self.edits += [Edit(start, start, f"{self.ckpt}.epochs(", why), Edit(end, end, ")", why)]

    def _step(self) -> None:
        """Note the end of a step, behind all that belongs to it."""
        script, tail = self.script, self.loop.tail
        last = next((number for number, one in enumerate(tail) if number and _leaves(script, one)), len(tail))
        for one in tail[last:]:
            if any(receiver(call) for call in method_calls(script, "step", one)):
                raise UnclearError(f"line {script.line(tail[last])} may leave the step before its end")
        call = f"{self.ckpt}.step(loss={self.names.loss})" if self.names.loss else f"{self.ckpt}.step()"
        lines, end = [call], tail[last - 1]
        if self.loop.sync and self.loop.condition is None:
            inside = _synced(script, end)
            if inside:
                end = inside[-1]
            else:
                lines = [f"if {self.names.accelerator}.sync_gradients:", f"    {call}"]
        why = "A step is done, with all that belongs to it: saves when it is time."
        self.edits.append(script.lines_behind(end, lines, why))

    def _counter(self) -> str:
        """Return the variable of the same function that is 0 before the loop and counts the steps; ``""`` for none."""
        script, loop, cst = self.script, self.loop, _cst()
        if len(loop.calls) > loop.crossed:
            return ""
        synced = (
            [one for statement in loop.suite.body for one in _synced(script, statement)] if loop.sync else []
        )
        for statement in synced if loop.sync else loop.suite.body:
            for node in script.all(cst.AugAssign, statement, nested=False):
                name = dotted(node.target)
                plain = isinstance(statement, cst.SimpleStatementLine)
                if plain and isinstance(node.operator, cst.AddAssign) and script.code(node.value) == "1":
                    before = [
                        one
                        for one in script.all(cst.Assign)
                        if any(dotted(target.target) == name for target in one.targets)
                    ]
                    if (
                        len(before) == 1
                        and script.code(before[0].value) == "0"
                        and not _within(script, before[0], loop.top)
                    ):
                        return name
        return ""


def _cst() -> Any:
    return libcst_or_error()


def _within(script: Script, node: Any, outer: Any) -> bool:
    return any(one is outer for one in script.around(node))


def _places(call: Any) -> list[Any]:
    return [one for one in call.args if one.keyword is None and not one.star]


def _innermost(node: Any) -> Any:
    """Return what is looped over, without enumerate() and progress bars around it."""
    while isinstance(node, _cst().Call) and node.args:
        name = dotted(node.func)
        if name != "enumerate" and name.rsplit(".", 1)[-1] not in ("tqdm", "track"):
            break
        node = node.args[0].value
    return node


def _leaves(script: Script, statement: Any) -> bool:
    cst = _cst()
    return bool(
        [
            one
            for kind in (cst.Break, cst.Continue, cst.Return)
            for one in script.all(kind, statement, nested=False)
        ]
    )


def _synced(script: Script, statement: Any) -> list[Any]:
    """Return the statements that an ``if accelerator.sync_gradients:`` guards, and nothing else."""
    if not isinstance(statement, _cst().If) or statement.orelse is not None:
        return []
    alone = script.code(statement.test).endswith(".sync_gradients") and " " not in script.code(statement.test)
    return list(statement.body.body) if alone and isinstance(statement.body, _cst().IndentedBlock) else []


def _prepared(script: Script) -> set[str]:
    return {
        dotted(one.value)
        for name in ("prepare", "register_for_checkpointing")
        for call in method_calls(script, name)
        for one in call.args
    }
