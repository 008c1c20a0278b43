"""Data that a script draws anew at each start: a split, an order or rows without a seed, the order of a set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, method_calls, receiver
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.own_classes import classes_of
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.walk import local_names

_TORCH = re.compile(
    r"torch\.(?:rand|randn|randint|randperm|multinomial|normal|bernoulli|rand_like|randn_like)$"
)
_SPLITS = re.compile(r"(?:random_split|train_test_split|ShuffleSplit|Repeated(?:Stratified)?KFold)$")
_FOLDS = re.compile(r"(?:^|\.)(?:Stratified)?(?:Group)?KFold$")
"""What draws only where it is told to shuffle."""
_NUMPY = re.compile(r"numpy\.random\.(?!default_rng|RandomState|Generator|seed|get_state|set_state)\w+$")
_PYTHON = re.compile(r"random\.(?:random|randint|shuffle|sample|choice|choices|uniform|randrange|gauss)$")
_QUIET = re.compile(
    r"print|len|int|float|str|bool|range|min|max|sum|list|dict|tuple|next|isinstance|round|abs|zip|enumerate|"
    r"(?:time|math)\.\w+|"
    r"(?:[\w.]+\.)?(?:train|eval|zero_grad|append|item|format|info|debug|time|perf_counter|update|set_description|items|"
    r"tqdm|trange|deque|defaultdict|SummaryWriter|add_scalar|requires_grad_|join|makedirs|StopIteration)"
)
"""Calls that draw no random numbers."""
_SEEDED = ("generator", "random_state", "seed")


def refuse_fresh_data(script: Script, loop: Loop, models: list[str]) -> None:
    """Raise UnclearError where what is drawn ahead of the loop differs from start to start, and reaches its data."""
    seeds = seeds_of(script)
    start = script.span(loop.top)[0]
    used = in_use(script, loop)
    _refuse_drawn_beside(script, seeds)
    for call in script.all(cst.Call):
        path = script.path(call.func)
        kind = _kind(path) or ("numpy" if _shuffles(script, call) else "")
        behind = script.span(call)[0] > script.span(loop.top)[1]
        if behind and function_of(script, call) is function_of(script, loop.top):
            continue  # no data of its own
        if kind and not any(_within(script, call, one) for one in used):
            given = any(one.keyword is not None and one.keyword.value in _SEEDED for one in call.args)
            if not given and kind not in seeds and _reaches_data(script, call, path, used, models):
                raise UnclearError(
                    f"line {script.line(call)} draws the data anew at each start ({path.rsplit('.', 1)[-1]} without a "
                    f"seed), so a resume would train on others: set a seed first, such as {_ADVICE[kind]}"
                )
        if path in ("list", "enumerate", "tuple") and call.args and script.span(call)[0] < start:
            inner = call.args[0].value
            of_set = isinstance(inner, cst.Call) and script.path(inner.func) == "set"
            if of_set and not _sorted(script, call):
                raise UnclearError(
                    f"line {script.line(call)} goes through a set, whose order Python draws anew at each start: use "
                    "sorted(…)"
                )


def _refuse_drawn_beside(script: Script, seeds: set[str]) -> None:
    """Raise UnclearError for objects that draw when they are made, of a class of a module beside the script."""
    for name, (home, node) in classes_of(script).items():
        if home is script or any(home.path(base.value).endswith("Module") for base in node.bases):
            continue  # a network's weights are the model's
        made = [call for call in script.all(cst.Call) if script.path(call.func) == name]
        for function in home.all(cst.FunctionDef, node) if made else ():
            for call in home.all(cst.Call, function) if function.name.value == "__init__" else ():
                kind = _kind(home.path(call.func))
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


def is_draw(path: str) -> bool:
    """Tell whether a call of this path draws random numbers."""
    return bool(_kind(path))


def is_split(path: str) -> bool:
    """Tell whether a call of this path draws which rows go where."""
    return bool(_SPLITS.search(path))


def quiet(script: Script, node: Any) -> bool:
    """Tell whether a statement surely draws no random numbers."""
    return all(_QUIET.fullmatch(dotted(call.func)) for call in script.all(cst.Call, node))


def _kind(path: str) -> str:
    if _TORCH.search(path) or path.endswith("random_split"):
        return "torch"
    if _NUMPY.match(path) or _SPLITS.search(path):
        return "numpy"
    return "python" if _PYTHON.match(path) else ""


def _shuffles(script: Script, call: Any) -> bool:
    """Tell whether a call makes folds of rows in an order that is drawn."""
    asked = [one.value for one in call.args if one.keyword is not None and one.keyword.value == "shuffle"]
    return bool(_FOLDS.search(script.path(call.func)) and asked and dotted(asked[0]) != "False")


def seeds_of(script: Script) -> set[str]:
    """Return the generators that something seeds."""
    found: set[str] = set()
    for call in script.all(cst.Call):
        path = script.path(call.func)
        last = path.rsplit(".", 1)[-1]
        text = script.code(call)
        if "seed" not in last or "time.time" in text or "None" in text:
            continue
        if path.startswith("torch."):
            found.add("torch")
        elif path.startswith("numpy."):
            found.add("numpy")
        elif path == "random.seed":
            found.add("python")
        elif not any(one.name.value == last for one in script.all(cst.FunctionDef)):
            found |= {"torch", "numpy", "python"}  # a library's, or a module's beside the script: all
    return found


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
    if path.endswith("shuffle"):
        return True
    way = [call, *script.around(call)]
    heads = [one for one in way if isinstance(one, cst.For) and any(up is one.iter for up in way)]
    kinds = (cst.Assign, cst.FunctionDef)
    assign = next((one for one in way if isinstance(one, kinds) or any(one is head for head in heads)), None)
    if isinstance(assign, cst.FunctionDef):
        targets = {assign.name.value}  # what it returns is made of it
    elif isinstance(assign, cst.For):
        targets = {one.value for one in script.all(cst.Name, assign.target)}
    elif isinstance(assign, cst.Assign):
        targets = {one.value for target in assign.targets for one in script.all(cst.Name, target.target)}
    else:
        return False
    made = [
        (
            {one.value for target in node.targets for one in script.all(cst.Name, target.target)},
            {one.value for one in script.all(cst.Name, node.value)},
        )
        for node in script.all(cst.Assign)
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
