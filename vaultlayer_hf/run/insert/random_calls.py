"""Calls that draw random numbers, and calls that seed what they draw from: with the same seed at each start, or not."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import calls_of, given_values
from vaultlayer_hf.run.insert.calls import CLOCK, function_of, sources_of
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script, dotted

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
_SEEDS = {"torch.manual_seed": "torch", "numpy.random.seed": "numpy", "random.seed": "python"}
_ENTROPY = re.compile(
    r"^(?:os\.(?:urandom|getpid)|secrets\.\w+|uuid\.\w+|torch\.(?:initial_)?seed|random\.SystemRandom|hash)$"
)
"""What gives another number in each process, as the hash of a text does."""


def is_draw(path: str) -> bool:
    """Tell whether a call of this path draws random numbers."""
    return bool(kind_of(path))


def is_split(path: str) -> bool:
    """Tell whether a call of this path draws which rows go where."""
    return bool(_SPLITS.search(path))


def quiet(script: Script, node: Any) -> bool:
    """Tell whether a statement surely draws no random numbers."""
    return all(_QUIET.fullmatch(dotted(call.func)) for call in script.all(cst.Call, node))


def kind_of(path: str) -> str:
    """Return what a call of this path draws from: ``torch``, ``numpy`` or ``python``; ``""``: it draws nothing."""
    if _TORCH.search(path) or path.endswith("random_split"):
        return "torch"
    if _NUMPY.match(path) or _SPLITS.search(path):
        return "numpy"
    return "python" if _PYTHON.match(path) else ""


def shuffles(script: Script, call: Any) -> bool:
    """Tell whether a call makes folds of rows, or data of the library datasets, in an order that is drawn."""
    path = script.path(call.func)
    method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
    datasets = any(one.split(".")[0] == "datasets" for one in script.imports.values())
    placed = any(one.keyword is None for one in call.args)
    if method == "shuffle" and datasets and not placed and path.split(".")[0] not in ("random", "numpy"):
        return True
    asked = [one.value for one in call.args if one.keyword is not None and one.keyword.value == "shuffle"]
    return bool(_FOLDS.search(path) and asked and dotted(asked[0]) != "False")


def seeds_of(script: Script) -> set[str]:
    """Return the generators that something seeds, with the same seed at each start."""
    found: set[str] = set()
    functions = {one.name.value for one in script.all(cst.FunctionDef)}
    named = Counter(one.value for one in script.all(cst.Name))
    of_workers = {
        dotted(one.value)
        for one in script.all(cst.Arg)
        if one.keyword is not None and one.keyword.value == "worker_init_fn"
    }
    for call in script.all(cst.Call):
        first, dot, _ = dotted(call.func).partition(".")
        path = script.path(call.func)
        last = path.rpartition(".")[2]
        home = function_of(script, call)
        if "seed" not in last or _is_new_seed(script, call):
            continue
        if home is not None and (home.name.value in of_workers or named[home.name.value] < 2):
            continue  # in a worker's process, or never called
        if path in _SEEDS:
            found.add(_SEEDS[path])
        elif path.startswith(("torch.", "numpy.", "random.")) or last in functions:
            continue  # of one device alone; and what a function of the script's own calls is looked at by itself
        elif first in script.imports or not dot:
            found |= {"torch", "numpy", "python"}  # a library's, or a module's beside the script: all
    return found


def _is_new_seed(script: Script, call: Any) -> bool:
    """Tell whether a call seeds with another number at each start, be it only where none is asked for."""
    if not call.args:
        return script.path(call.func) in _SEEDS
    home = function_of(script, call)
    values = [one.value for one in call.args]
    names = {dotted(one) for part in values for one in script.all((cst.Name, cst.Attribute), part)} - {""}
    for name in names:
        seen = [(source, function_of(script, source)) for source in sources_of(script, name)]
        values += [source for source, at in seen if "." in name or at is None or at is home]
    for name in names & (parameters_of(home) if home is not None else set()):
        values += [one for one in given_values(script, home, calls_of(script, home), name) if one is not None]
    if any(dotted(one) == "None" for one in (one.value for one in call.args)):
        return True
    paths = [script.path(one.func) for part in values for one in script.all(cst.Call, part)]
    return any(CLOCK.search(path) or is_draw(path) or _ENTROPY.match(path) for path in paths)


def seed_in_words(script: Script, kind: str) -> str:
    """Return why a generator isn't seeded, in words."""
    for call in script.all(cst.Call):
        if _SEEDS.get(script.path(call.func)) == kind and _is_new_seed(script, call):
            return f"with the seed of line {script.line(call)}, which is another one each time"
    return "without a seed"
