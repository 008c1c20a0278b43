"""Scripts that make a Trainer: it gets ``resume=``, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of, is_made_once, repeated_by
from vaultlayer_hf.run.insert.calls import assignments
from vaultlayer_hf.run.insert.own_classes import classes_of
from vaultlayer_hf.run.insert.source import Edit, Script, dotted, new_import

_ROOTS = ("transformers", "trl", "sentence_transformers")
"""Libraries whose classes named …Trainer are transformers.Trainer or subclasses of it."""
LINES = (
    "from vaultlayer_hf import resumable",
    "trainer = resumable(MyTrainer)(  # your subclass of transformers.Trainer",
    "    model=model, args=args, train_dataset=ds,",
    "    resume={vault},",
    ")",
)


@dataclass
class TrainerEdit:
    """What to change, or why nothing can be.

    Attributes:
        edits: in any order.
        remarks: what the user should know beside them.
        reason: why the script isn't recognised; then there are no edits.
        trains: whether anything in it looks like a training.
    """

    edits: list[Edit] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    reason: str = ""
    trains: bool = True


def uses_trainer(script: Script) -> bool:
    """Tell whether a script makes a Trainer of transformers, or of a library on top of it."""
    return bool(_made(script))


def plan_trainer(script: Script, vault: str) -> TrainerEdit:
    """Return the edits for a script that ``uses_trainer``; ``vault`` is the code to write for ``resume=``."""
    calls = _trained(script, _made(script))
    if len(calls) != 1 and not _alternatives(script, calls):
        lines = ", ".join(str(script.line(call)) for call in calls)
        return TrainerEdit(
            reason=f"it makes {len(calls)} Trainers (lines {lines}), and each training needs a vault of its own"
        )
    for again in filter(None, (_repeats(script, call) for call in calls)):
        return TrainerEdit(
            reason=f"line {script.line(again)} has it make its Trainer again and again, and each training needs a "
            "vault of its own"
        )
    plan = TrainerEdit()
    if all(script.path(call.func) == "transformers.Trainer" for call in calls) and _swap(script, plan):
        pass
    else:
        plan.edits.append(
            new_import(
                script,
                "from vaultlayer_hf import resumable",
                "resumable() gives any subclass of transformers.Trainer the argument resume=.",
            )
        )
        for call in calls:
            start, end = script.span(call.func)
            why = f"The same {script.code(call.func)}, with the argument resume=."
            plan.edits += [Edit(start, start, "resumable(", why), Edit(end, end, ")", why)]
    for call in calls:
        why = "Checkpoints go to this vault, and train() goes on from the newest complete one in it."
        plan.edits += _argument(script, call, f"resume={vault}", why)
    _explicit_resume(script, plan)
    _arguments(script, plan)
    return plan


def unknown_trainer(script: Script) -> str:
    """Return why what a script trains with isn't known to be a Trainer; ``""`` where nothing looks like one."""
    arguments = any(path == "transformers.TrainingArguments" for path in script.imports.values())
    for call in script.all(cst.Call):
        path = script.path(call.func)
        if arguments and path.endswith("Trainer") and dotted(call.func) in script.imports:
            return (
                f"{dotted(call.func)} comes from {path.rpartition('.')[0]}, where it isn't seen whether it is a "
                "transformers.Trainer"
            )
    return ""


def _made(script: Script) -> list[Any]:
    """Return the calls that make a Trainer."""
    own: set[str] = {name for name, kind in classes_of(script).items() if _is_own_trainer(*kind)}
    classes = script.all(cst.ClassDef)
    for _ in classes:  # subclasses of subclasses, in whatever order
        own |= {
            node.name.value
            for node in classes
            if any(_is_trainer(script.path(base.value), own) for base in node.bases)
        }
    return [call for call in script.all(cst.Call) if _is_trainer(script.path(call.func), own)]


def _is_own_trainer(script: Script, node: Any) -> bool:
    """Tell whether a class of a module beside the script is a Trainer, by its bases."""
    return any(_is_trainer(script.path(base.value), set()) for base in node.bases)


def _is_trainer(path: str, own: set[str]) -> bool:
    root, _, name = path.partition(".")
    return path in own or (root in _ROOTS and name.endswith("Trainer"))


def _trained(script: Script, calls: list[Any]) -> list[Any]:
    """Return those that are trained; all, where that can't be seen."""
    trained = {
        dotted(call.func.value)
        for call in script.all(cst.Call)
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "train"
    }
    return [call for call in calls if _target(script, call) in trained] or calls


def _repeats(script: Script, node: Any, within: tuple[Any, ...] = ()) -> Any:
    """Return what makes a piece of code run several times: a loop around it, or the second call of its function."""
    for up in script.around(node):
        if isinstance(up, (cst.For, cst.While, cst.BaseComp)):
            return up
        if isinstance(up, cst.FunctionDef):
            places = calls_of(script, up) if not any(up is one for one in within) else []
            if not is_made_once(script, places):
                return places[1]
            again = (_repeats(script, place, (*within, up)) for place in places)
            return next(filter(None, again), None) or repeated_by(script, up)
    return None


def _target(script: Script, call: Any) -> str:
    made = next((one for one in assignments(script) if one.value is call), None)
    return dotted(made.targets[0]) if made is not None and len(made.targets) == 1 else ""


def _alternatives(script: Script, calls: list[Any]) -> bool:
    """Tell whether only one of these calls can be made: they are branches of one ``if``, with one name."""
    if len({_target(script, call) for call in calls}) != 1 or not _target(script, calls[0]):
        return False
    branches = []
    for call in calls:
        path = [node for node in script.around(call) if isinstance(node, (cst.If, cst.Else))]
        if not path:
            return False
        branches.append(path[0])
    tops = set()
    for branch in branches:
        top = branch
        while isinstance(script.parent(top), cst.If):  # elif and else hang from the if before
            top = script.parent(top)
        tops.add(id(top))
    return len(tops) == 1 and len({id(branch) for branch in branches}) == len(branches)


def _swap(script: Script, plan: TrainerEdit) -> bool:
    """Import our Trainer instead of theirs, where nothing but the calls uses that name."""
    found = [
        (node, number)
        for node in script.all(cst.ImportFrom)
        if not isinstance(node.names, cst.ImportStar)
        for number, alias in enumerate(node.names)
        if dotted(alias.name) == "Trainer" and script.path(alias.name) == "transformers.Trainer"
    ]
    based = any(dotted(base.value) == "Trainer" for node in script.all(cst.ClassDef) for base in node.bases)
    if len(found) != 1 or based or found[0][0].names[found[0][1]].asname is not None:
        return False
    statement, number = found[0]
    line = script.parent(statement)
    if script.parent(line) is not script.module or len(line.body) != 1:
        return False
    why = "Our Trainer is transformers.Trainer with one more argument, resume=."
    ours = "from vaultlayer_hf import Trainer"
    names = statement.names
    if len(names) == 1:
        start, end = script.span(statement)
        plan.edits.append(Edit(start, end, ours, why))
        return True
    if number + 1 < len(names):
        cut = script.span(names[number].name)[0], script.span(names[number + 1].name)[0]
    else:
        before = names[number - 1]
        kept = before.asname.name if before.asname is not None else before.name
        cut = script.span(kept)[1], script.span(names[number].name)[1]
    plan.edits += [Edit(*cut, "", why), new_import(script, ours, why)]
    return True


def _argument(script: Script, call: Any, text: str, why: str) -> list[Edit]:
    """Return the edits that add an argument at the end of a call, written as its others are."""
    close = script.span(call)[1] - 1
    if not call.args:
        return [Edit(close, close, text, why)]
    last = call.args[-1]
    end = script.span(last.value)[1]
    has_comma = isinstance(last.comma, cst.Comma)
    line = script.line_start(close)
    if script.text[line:close].strip() or line <= script.span(call)[0]:
        return [Edit(end, end, f", {text}", why)]
    indent = script.indent(script.span(last)[0])
    edits = [] if has_comma else [Edit(end, end, ",", why)]
    return [*edits, Edit(line, line, f"{indent}{text}{',' if has_comma else ''}{script.newline}", why)]


def _explicit_resume(script: Script, plan: TrainerEdit) -> None:
    """Deal with what train() is given: an explicit checkpoint wins over the vault."""
    for call in script.all(cst.Call):
        if not (isinstance(call.func, cst.Attribute) and call.func.attr.value == "train"):
            continue
        for number, argument in enumerate(call.args):
            if argument.keyword is None or argument.keyword.value != "resume_from_checkpoint":
                continue
            text = script.code(argument.value)
            sources = [argument.value, *_assigned(script, text)]
            found = any("get_last_checkpoint" in script.code(value) for value in sources) or any(
                "get_last_checkpoint" in script.code(inner)
                for value in sources
                for inner in _assigned(script, script.code(value))
            )
            asked = next(
                (
                    code
                    for value in sources
                    if (code := script.code(value)).endswith(".resume_from_checkpoint")
                ),
                "",
            )
            if text == "True" or (found and not asked):
                why = (
                    "The vault knows which checkpoint is complete; the newest folder on this disk may not be."
                )
                start, end = _without(script, call.args, number)
                plan.edits.append(Edit(start, end, "", why))
            elif found:
                start, end = script.span(argument.value)
                why = "Only a checkpoint that was asked for wins over the vault, not the newest folder on this disk."
                plan.edits.append(Edit(start, end, asked, why))
            elif text not in ("None", "False"):
                plan.remarks.append(
                    f"line {script.line(call)}: where {text} names a checkpoint, it wins over the vault, and the log "
                    "says so; None leaves the choice to the vault."
                )


def _assigned(script: Script, name: str) -> list[Any]:
    """Return the values that a name is assigned anywhere."""
    return [
        node.value for node in assignments(script) if any(dotted(target) == name for target in node.targets)
    ]


def _without(script: Script, arguments: Any, number: int) -> tuple[int, int]:
    start, end = script.span(arguments[number])
    if number + 1 < len(arguments):
        return start, script.span(arguments[number + 1])[0]
    if number:
        return script.span(arguments[number - 1].value)[1], script.span(arguments[number].value)[1]
    close = script.text.index(")", script.span(arguments[number].value)[1])
    return start, max(end, close) if not script.text[end:close].strip(", \t\r\n") else end


def _arguments(script: Script, plan: TrainerEdit) -> None:
    """Say which arguments keep checkpoints from being written, or from being whole."""
    for argument in script.all(cst.Arg):
        name = argument.keyword.value if argument.keyword is not None else ""
        value = script.code(argument.value).strip("\"'")
        if (name, value) == ("save_strategy", "no"):
            plan.remarks.append(
                f'line {script.line(argument)}: save_strategy="no" writes no checkpoints: use "steps" and save_steps.'
            )
        if (name, value) == ("save_only_model", "True"):
            plan.remarks.append(
                f"line {script.line(argument)}: save_only_model=True leaves out what a resume needs: remove it."
            )
