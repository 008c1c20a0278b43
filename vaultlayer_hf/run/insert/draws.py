"""Data that a script draws anew at each start: a split, an order or rows without a seed, the order of a set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import (
    Assignment,
    assignments,
    function_of,
    method_calls,
    receiver,
    sources_of,
)
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.own_classes import classes_of
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.random_calls import (
    is_draw,
    is_split,
    kind_of,
    seed_in_words,
    seeds_of,
    shuffles,
)
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import local_names

_SEEDED = ("generator", "random_state", "seed")
_IN_PLACE = re.compile(r"^(?:random|numpy\.random)\.shuffle$")
_MAKES_TENSORS = re.compile(
    r"(?:^|\.)(?:Variable|(?:Float|Double|Long)?Tensor|tensor|as_tensor|from_numpy|array|asarray|Parameter)$"
)


def fresh_values(script: Script, loop: Loop, models: list[str]) -> list[str]:
    """Return the names of tensors that are drawn ahead of the loop, others at each start, and that the loop only reads.

    They are to come back. Raises UnclearError where anything else that is drawn so reaches the loop's data.
    """
    seeds = seeds_of(script)
    start = script.span(loop.top)[0]
    used = in_use(script, loop)
    found: list[str] = []
    _refuse_drawn_beside(script, seeds)
    for call in script.all(cst.Call):
        method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
        path = script.path(call.func) or method  # of what has no name of its own
        kind = kind_of(path) or ("numpy" if shuffles(script, call) else "")
        behind = script.span(call)[0] > script.span(loop.top)[1]
        if behind and function_of(script, call) is function_of(script, loop.top):
            continue  # no data of its own
        if kind and not any(_within(script, call, one) for one in used):
            given = any(one.keyword is not None and one.keyword.value in _SEEDED for one in call.args)
            if not given and kind not in seeds and _reaches_data(script, call, path, used, models):
                name = _tensor_of_loop(script, loop, call)
                if not name:
                    raise UnclearError(
                        f"line {script.line(call)} draws the data anew at each start ({path.rsplit('.', 1)[-1]} "
                        f"{seed_in_words(script, kind)}), so a resume would train on others: set a seed first, such as "
                        f"{_ADVICE[kind]}"
                    )
                found.append(name)
        if path in ("list", "enumerate", "tuple") and call.args and script.span(call)[0] < start:
            inner = call.args[0].value
            of_set = isinstance(inner, cst.Call) and script.path(inner.func) == "set"
            if of_set and not _sorted(script, call):
                raise UnclearError(
                    f"line {script.line(call)} goes through a set, whose order Python draws anew at each start: use "
                    "sorted(…)"
                )
    return list(dict.fromkeys(found))


def _made_of(script: Script, call: Any) -> list[Assignment]:
    """Return the assignments of which a call is the whole value."""
    return [one for one in assignments(script) if one.value is call]


def _tensor_of_loop(script: Script, loop: Loop, drawn: Any) -> str:
    """Return the name of the tensor that a call draws, where nothing ahead of the loop reads it; else ``""``."""
    made = next((one for one in assignments(script) if _draws_tensor(script, one.value, drawn)), None)
    name = dotted(made.targets[0]) if made is not None and len(made.targets) == 1 else ""
    if made is None or not name.isidentifier() or len(sources_of(script, name)) != 1:
        return ""
    if function_of(script, made.node) is not function_of(script, loop.top) or _within(
        script, drawn, loop.top
    ):
        return ""
    start = script.span(loop.top)[0]
    for one in script.all(cst.Name):
        ahead = script.span(one)[0] < start and one is not made.targets[0]
        if one.value == name and ahead and function_of(script, one) is function_of(script, made.node):
            return ""
    return name


def _draws_tensor(script: Script, value: Any, drawn: Any) -> bool:
    """Tell whether a value is the tensor that a call draws, moved to its device or wrapped on its way."""
    while value is not drawn:
        if not isinstance(value, cst.Call):
            return False
        if isinstance(value.func, cst.Attribute) and isinstance(value.func.value, cst.Call):
            value = value.func.value  # torch.randn(…).to(device)
        elif value.args and _MAKES_TENSORS.search(script.path(value.func)):
            value = value.args[0].value
        else:
            return False
    return is_draw(script.path(drawn.func)) and not is_split(script.path(drawn.func))


def _refuse_drawn_beside(script: Script, seeds: set[str]) -> None:
    """Raise UnclearError for objects that draw when they are made, of a class of a module beside the script."""
    for name, (home, node) in classes_of(script).items():
        if home is script or any(home.path(base.value).endswith("Module") for base in node.bases):
            continue  # a network's weights are the model's
        made = [call for call in script.all(cst.Call) if script.path(call.func) == name]
        for function in home.all(cst.FunctionDef, node) if made else ():
            for call in home.all(cst.Call, function) if function.name.value == "__init__" else ():
                kind = kind_of(home.path(call.func))
                if kind and kind not in seeds | seeds_of(home):
                    drawn = home.path(call.func).rsplit(".", 1)[-1]
                    raise UnclearError(
                        f"line {script.line(made[0])} draws the data anew at each start ({drawn} without a seed in "
                        f"{node.name.value} of {Path(home.name).name}), so a resume would train on others: set a seed "
                        f"first, such as {_ADVICE[kind]}"
                    )


_ADVICE = {
    "torch": "torch.manual_seed(0)",
    "numpy": "np.random.seed(0)",
    "python": "random.seed(0)",
}


def in_use(script: Script, loop: Loop) -> list[Any]:
    """Return what the loop runs: the draws in there are the loop's own, and its random numbers come back.

    Modules as well, whose weights and buffers are the model's.
    """
    functions = {one.name.value: one for one in script.all(cst.FunctionDef)}
    modules = [
        one
        for one in script.all(cst.ClassDef)
        if any(script.path(base.value).endswith("Module") for base in one.bases)
    ]
    found, coming = [loop.top], [loop.top, *modules]
    while coming:
        for call in script.all(cst.Call, coming.pop()):
            function = functions.get(dotted(call.func).rsplit(".", 1)[-1])
            if function is not None and not any(function is one for one in found):
                found.append(function)
                coming.append(function)
    return found + modules


def _within(script: Script, node: Any, outer: Any) -> bool:
    return any(one is outer for one in script.around(node))


def _reaches_data(script: Script, call: Any, path: str, used: list[Any], models: list[str]) -> bool:
    """Tell whether the loop reads what was drawn, or what was made of it; or the order of it was shuffled in place."""
    if _IN_PLACE.match(path):
        return True
    if any("seed" in script.code(one).lower() for made in _made_of(script, call) for one in made.targets):
        return False  # what is drawn with that seed is looked at by itself
    way = [call, *script.around(call)]
    heads = [one for one in way if isinstance(one, cst.For) and any(up is one.iter for up in way)]
    kinds = (cst.Assign, cst.AnnAssign, cst.FunctionDef)
    assign = next((one for one in way if isinstance(one, kinds) or any(one is head for head in heads)), None)
    if isinstance(assign, cst.FunctionDef):
        targets = {assign.name.value}  # what it returns is made of it
    elif isinstance(assign, cst.For):
        targets = {one.value for one in script.all(cst.Name, assign.target)}
    elif isinstance(assign, cst.Assign):
        targets = {one.value for target in assign.targets for one in script.all(cst.Name, target.target)}
    elif isinstance(assign, cst.AnnAssign):
        targets = {one.value for one in script.all(cst.Name, assign.target)}
    else:
        return False
    made = [
        (
            {one.value for target in node.targets for one in script.all(cst.Name, target)},
            {one.value for one in script.all(cst.Name, node.value)},
        )
        for node in assignments(script)
    ]
    made += [
        (
            {one.value for one in script.all(cst.Name, node.target)},
            {one.value for one in script.all(cst.Name, node.iter)},
        )
        for node in script.all(cst.For)
    ]
    for _ in made:
        targets |= {name for names, read in made if read & targets for name in names}
        targets -= set(models)
    read = {one.value for one in script.all(cst.Name, used[0])}
    for part in used[1:]:
        if isinstance(part, cst.FunctionDef):  # what it reads of the module, or of an object
            own = parameters_of(part) | local_names(script, part)
            read |= {one.value for one in script.all(cst.Name, part.body)} - own
    return bool(read & targets)


def _sorted(script: Script, node: Any) -> bool:
    """Tell whether the order is made the same again: by sorted(…) around it, or .sort() of what it is assigned to."""
    assign = next((one for one in script.around(node) if isinstance(one, cst.Assign)), None)
    names = {dotted(one.target) for one in assign.targets} if assign is not None else set()
    if names & {receiver(call) for call in method_calls(script, "sort")} - {""}:
        return True
    return any(
        isinstance(one, cst.Call) and script.path(one.func) in ("sorted", "len")
        for one in script.around(node)
    )
