"""Accelerate scripts that save and load states themselves: their own calls are led through the vault.

Only where the loop itself can't be edited, and they save at the end of epochs: within one, accelerate's own resume goes
on with other random numbers, and many scripts begin the epoch's data anew.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import is_statement, made_by, method_calls, receiver
from vaultlayer_hf.run.insert.source import Script, dotted, new_import
from vaultlayer_hf.run.insert.trainers import TrainerEdit

LINES = (
    "from vaultlayer_hf import Checkpointer",
    "ckpt = Checkpointer({vault})",
    "newest = ckpt.attach(accelerator)  # after accelerator.prepare(…)",
    "if newest is not None:",
    "    accelerator.load_state(newest)  # and go on from the step that it belongs to",
)
OPTION = "resume_from_checkpoint"
"""How scripts call the option that names the state to go on from."""


def saves_states(script: Script) -> bool:
    """Tell whether a script calls ``accelerator.save_state``."""
    return bool(_saves(script))


def _saves(script: Script) -> list[Any]:
    """Return the calls of an Accelerator's save_state; a Trainer has a method of that name, too."""
    prepared = {receiver(call) for call in method_calls(script, "prepare")}
    return [
        call
        for call in method_calls(script, "save_state")
        if receiver(call) in prepared
        or "accelerate" in "".join(made_by(script, receiver(call)))
        or "accelerator" in receiver(call)
    ]


def plan_states(script: Script, vault: str) -> TrainerEdit:
    """Return the edits for a script that ``saves_states``; ``vault`` is the code that names the vault."""
    prepared = method_calls(script, "prepare") + method_calls(script, "register_for_checkpointing")
    loads = method_calls(script, "load_state")
    if not prepared or not loads:
        what = "never prepares anything" if not prepared else "saves states and never loads one"
        return TrainerEdit(reason=f"it {what}")
    for call in _saves(script):
        if not _behind_epoch(script, call):
            return TrainerEdit(
                reason=f"line {script.line(call)} saves within an epoch, where accelerate's own resume isn't exact"
            )
    statements = [_statement(script, call) for call in prepared]
    block = _common_block(script, statements)
    if block is None:
        where = ", ".join(str(script.line(call)) for call in prepared)
        return TrainerEdit(reason=f"it prepares in several functions (lines {where})")
    last = max((_within_block(script, one, block) for one in statements), key=script.line)
    accelerator = dotted(prepared[0].func.value)
    ckpt, newest = (
        script.free("ckpt", "checkpointer", "vault_ckpt"),
        script.free("newest", "newest_checkpoint"),
    )
    lines = [f"{ckpt} = Checkpointer({vault})", f"{newest} = {ckpt}.attach({accelerator})"]
    plan = TrainerEdit(
        [
            new_import(
                script, "from vaultlayer_hf import Checkpointer", "Saves to a vault and resumes from there."
            )
        ]
    )
    option = option_in(script)
    if option:
        lines += [f"if {newest} is not None:", f"    {option} = str({newest})"]
        how = f"{option} then names it, so the script's own way of resuming goes on from there"
    else:
        how = "load_state() then loads it"
        plan.remarks.append(
            f"Line {script.line(loads[0])} must be reached where there is a state: see that nothing hinders it."
        )
    why = f"save_state() now also goes to the vault, and the newest state in it is brought back here; {how}."
    plan.edits.append(script.lines_behind(last, lines, why))
    if not method_calls(script, "end_training"):
        end = _last_statement(script, last)
        why = "Waits until the last state is committed, and notes that the run is done."
        plan.edits.append(script.lines_behind(end, [f"{ckpt}.finish()"], why))
    return plan


def _behind_epoch(script: Script, call: Any) -> bool:
    """Tell whether a state is saved behind an epoch's batches: in one loop, and behind another one in there."""
    loops = []
    for one in script.around(call):
        if isinstance(one, cst.FunctionDef):
            break
        if isinstance(one, (cst.For, cst.While)):
            loops.append(one)
    return len(loops) == 1 and any(
        script.span(one)[1] < script.span(call)[0] for one in script.all(cst.For, loops[0].body)
    )


def _statement(script: Script, node: Any) -> Any:
    return next(one for one in script.around(node) if is_statement(one))


def _common_block(script: Script, statements: list[Any]) -> Any:
    """Return the smallest block that holds all of these, branches of one ``if`` for instance; None across functions."""
    first, *others = [list(script.around(one)) for one in statements]
    for node in first:
        if isinstance(node, (cst.IndentedBlock, cst.Module)):
            if all(any(node is one for one in path) for path in others):
                return node
        elif isinstance(node, (cst.FunctionDef, cst.For, cst.While)):
            return None
    return None


def _within_block(script: Script, statement: Any, block: Any) -> Any:
    """Return the statement of a block in which another one lies."""
    while script.parent(statement) is not block:
        statement = script.parent(statement)
    return statement


def _last_statement(script: Script, statement: Any) -> Any:
    """Return the outermost loop behind a statement, in the same block; else the block's last statement."""
    body = list(script.parent(statement).body)
    position = next(number for number, one in enumerate(body) if one is statement)
    loops = [one for one in body[position:] if isinstance(one, (cst.For, cst.While))]
    return loops[-1] if loops else body[-1]


def kept_by_hooks(script: Script) -> set[str]:
    """Return the names of what an Accelerator's hooks of the script's own write and load, such as an average."""
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    used: dict[str, set[str]] = {"save": set(), "load": set()}
    for way, names in used.items():
        for call in method_calls(script, f"register_{way}_state_pre_hook"):
            hook = functions.get(dotted(call.args[0].value)) if call.args else None
            methods = ("load_state_dict",) if way == "load" else ("save_pretrained", "state_dict")
            for method in methods if hook is not None else ():
                names |= {receiver(one) for one in method_calls(script, method, hook)}
    return {name for name in used["save"] & used["load"] if name}


def option_in(script: Script, inside: Any = None) -> str:
    """Return the expression that holds the checkpoint which the user has asked for; ``""`` where there is none."""
    for node in script.all(cst.Attribute, inside):
        if node.attr.value == OPTION and dotted(node):
            return dotted(node)
    return ""
