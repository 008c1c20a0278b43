"""What goes from one training of a script to the next, where it trains several times: see trainings.py.

A start goes through the trainings that are over without training. What these change must then be in their vaults, or
be made anew for the next one: else the script is left alone.
"""

from __future__ import annotations

import re
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.calls import function_of, method_calls, receiver, sources_of
from vaultlayer_hf.run.insert.draws import in_use
from vaultlayer_hf.run.insert.kept_files import READS, written_paths
from vaultlayer_hf.run.insert.loop import Loop, UnclearError
from vaultlayer_hf.run.insert.loop_names import Names
from vaultlayer_hf.run.insert.loop_variables import Variables
from vaultlayer_hf.run.insert.named_values import GENERATORS
from vaultlayer_hf.run.insert.own_classes import classes_of, is_kind
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.pass_variables import walk_of
from vaultlayer_hf.run.insert.random_calls import is_split, seeds_of
from vaultlayer_hf.run.insert.saved_states import option_in
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.trainings import Trainings
from vaultlayer_hf.run.insert.walk import Walk, local_names
from vaultlayer_hf.stores.uri import parse_vault

_SHARED = "trains several times, and each training needs a vault of its own"


def refuse_unfollowed(
    script: Script, loop: Loop, names: Names, vault: str, *, drawn: bool, counted: bool
) -> None:
    """Raise UnclearError for several trainings of which one that is over can't be gone through.

    ``vault``: the code that names the vault; ``drawn``: whether the loop draws its batches with next(); ``counted``:
    whether it goes over the numbers of its steps.
    """
    trainings, top = _several(loop), loop.top
    paths = list(script.imports.values())
    if not vault or parse_vault(vault.strip('"')).named:
        raise UnclearError(f"it {_SHARED}: name the one that they are to lie in, vl init --vault URI")
    if names.accelerator or any(path.startswith("torch.distributed") for path in paths):
        raise UnclearError(
            "it trains several times, and an Accelerator, or a group of ranks, goes from one training to the next"
        )
    if "torch" not in seeds_of(script):
        raise UnclearError(
            "it trains several times without a seed, so what is made ahead of its trainings is another at each start: "
            "set one first, such as torch.manual_seed(0)"
        )
    if drawn:
        raise UnclearError(
            "it trains several times and draws its batches with next(), which is followed in one training alone"
        )
    if option_in(script):
        raise UnclearError(f"it {_SHARED}, but {option_in(script)} goes on from one checkpoint alone")
    leaves = script.all(cst.Return, top, nested=False)
    leaves += _breaks(script, top) if loop.outer is None else []
    told = isinstance(loop.outer, cst.For) or counted  # how often it goes round is in its head
    if leaves or not told:
        raise UnclearError(
            f"it trains several times, and line {script.line(leaves[0] if leaves else top)} may end a training early: "
            "a start wouldn't see that it is over"
        )
    if loop.outer is None and trainings.around is not None:
        _refuse_epochs(script, trainings, names)
    _refuse_generators(script, trainings)
    _refuse_own_data(script)
    _refuse_left_out(script, trainings)
    _refuse_appending(script, loop)


def refuse_left_behind(script: Script, loop: Loop, names: Names, found: Variables) -> None:
    """Raise UnclearError for what a training leaves to the code behind it that its vault hasn't got.

    ``found``: what the vault has beside the objects of ``names``.
    """
    trainings = _several(loop)
    maybe = [*names.maybe, *found.maybe]
    if maybe:
        raise UnclearError(
            f"it trains several times, and {maybe[0]} is made only under a condition: the next training may begin with "
            "that of the one before"
        )
    written = written_paths(script, loop)
    for call in script.all(cst.Call) if written else ():
        path = script.code(call.args[0].value) if call.args else ""
        if (
            READS.search(script.path(call.func))
            and path not in found.files
            and not _is_ahead(script, trainings, call)
        ):
            raise UnclearError(
                f"it trains several times, and line {script.line(call)} loads a file, which may be one that a training "
                "that is over has written: keep it in a variable"
            )
    if trainings.function is None:
        return
    _refuse_made_between(script, trainings, [*_named(names), *found.loop, *found.objects, *found.models])
    walk = walk_of(script, loop.top)
    shared = _globals(script, loop)
    kept = {*found.loop, *found.objects, *found.contents, *found.models, *found.in_pass}
    for name, line in walk.written.items():
        if name not in kept and ("." in name or name in shared):
            raise UnclearError(
                f"it trains several times, and line {line} sets {name}, which the code after a training may read: "
                "return it"
            )


def kept_gradients(script: Script, loop: Loop, names: Names) -> list[str]:
    """Return the models whose gradients of a training that is over the next one may read: where it clips them, say."""
    trainings = loop.trainings
    if trainings is None or not re.search(r"clip_grad|\.grad\b", script.text):
        return []
    around = trainings.around
    anew = [
        name
        for name in names.models
        if around is not None
        and sources_of(script, name)
        and all(any(up is around for up in script.around(one)) for one in sources_of(script, name))
    ]
    return [name for name in names.models if name not in anew]


def _several(loop: Loop) -> Trainings:
    assert loop.trainings is not None
    return loop.trainings


def _breaks(script: Script, loop: Any) -> list[Any]:
    """Return the ``break`` statements that leave a loop."""
    kinds = (cst.For, cst.While)
    return [
        one
        for one in script.all(cst.Break, loop, nested=False)
        if next(up for up in script.around(one) if isinstance(up, kinds)) is loop
    ]


def _refuse_epochs(script: Script, trainings: Trainings, names: Names) -> None:
    """Raise UnclearError where rounds that make the optimizer anew go on with the weights of the round before."""
    around = trainings.around
    begun = {receiver(call) for method in _BEGINS for call in method_calls(script, method, around)}
    for name in names.models:
        made = [one for one in sources_of(script, name) if any(up is around for up in script.around(one))]
        if not made and name not in begun:
            line = next(
                script.line(one) for one in sources_of(script, names.optimizer) if isinstance(one, cst.Call)
            )
            raise UnclearError(
                f"line {line} makes {names.optimizer} anew in each round, and {name} goes on from one to the next"
            )


_BEGINS = ("reset_parameters", "load_state_dict", "apply", "init_weights", "reset")
"""Methods that give a module weights to begin with."""


def _refuse_generators(script: Script, trainings: Trainings) -> None:
    """Raise UnclearError for what draws by itself, in one training after the other."""
    own = trainings.own
    for call in script.all(cst.Call):
        ways = list(script.around(call))
        path = script.path(call.func)
        if any(up is own for up in ways):
            continue
        for_split = any(isinstance(up, cst.Call) and is_split(script.path(up.func)) for up in ways)
        keeps = [
            one
            for one in call.args
            if path.endswith("DataLoader")
            and one.keyword is not None
            and one.keyword.value == "persistent_workers"
        ]
        if (path in GENERATORS and not for_split) or (keeps and dotted(keeps[0].value) != "False"):
            what = "random generator" if path in GENERATORS else "workers"
            raise UnclearError(
                f"it trains several times, and the {what} of line {script.line(call)} may go on from one training to "
                "the next, which the vault of the one hasn't got: make it for each training"
            )


def _refuse_own_data(script: Script) -> None:
    """Raise UnclearError for data, or a sampler, of a class of the script's own that changes itself when it is read."""
    classes = classes_of(script)
    for name, (home, node) in classes.items():
        if is_kind(script, (home, node), "Module", classes):
            continue
        for function in home.all(cst.FunctionDef, node):
            if function.name.value not in ("__getitem__", "__iter__", "__next__", "__getitems__"):
                continue
            walk = Walk(home, follow=False)
            walk.suite(function.body)
            changed = [one for one in (*walk.written, *walk.changed) if one.startswith("self.")]
            draws = [
                on for on, method, _ in walk.calls if on.startswith("self.") and method not in _READS_ONLY
            ]
            if changed or (draws and function.name.value != "__getitem__"):
                raise UnclearError(
                    f"it trains several times, and {name}.{function.name.value}() may change its object, which the "
                    "vault of a training hasn't got"
                )


_READS_ONLY = ("__call__", "items", "keys", "values", "get", "index")


def _refuse_left_out(script: Script, trainings: Trainings) -> None:
    """Raise UnclearError for a training that is left out by what a call says: the next start may hear another thing."""
    tests: list[Any] = []
    if trainings.around is not None:
        for kind in (cst.Break, cst.Continue):
            for node in script.all(kind, trainings.around, nested=False):
                ways = list(script.around(node))
                loop = next(up for up in ways if isinstance(up, (cst.For, cst.While)))
                if loop is trainings.around:
                    tests += [one.test for one in ways[: ways.index(loop)] if isinstance(one, cst.If)]
    for call in trainings.calls:
        tests += [one.test for one in script.around(call) if isinstance(one, cst.If)]
    for test in tests:
        if script.all(cst.Call, test):
            raise UnclearError(
                f"it trains several times, and line {script.line(test)} may leave a training out at one start and not "
                "at another"
            )


def _refuse_appending(script: Script, loop: Loop) -> None:
    """Raise UnclearError for code beside the trainings that adds to a file: a start would have it do so once more."""
    used = in_use(script, loop)
    for call in script.all(cst.Call):
        modes = [one.value for one in call.args if one.keyword is not None and one.keyword.value == "mode"]
        if script.path(call.func).rpartition(".")[2] == "open":
            modes += [one.value for one in call.args if one.keyword is None]
        appends = any(
            isinstance(one, cst.SimpleString) and re.fullmatch(r"['\"]a[bt+]*['\"]", one.value)
            for one in modes
        )
        if appends and not any(up is part for part in used for up in script.around(call)):
            raise UnclearError(
                f"it trains several times, and line {script.line(call)} adds to a file, which a start would do once "
                "more for each training that is over"
            )


def _is_ahead(script: Script, trainings: Trainings, call: Any) -> bool:
    """Tell whether something is done ahead of the first training."""
    first = trainings.around if trainings.around is not None else trainings.calls[0]
    here = function_of(script, call) is function_of(script, first)
    return here and script.span(call)[0] < script.span(first)[0]


def _named(names: Names) -> list[str]:
    found = [names.optimizer, names.scheduler, *names.models, *names.others, *names.tensors]
    return [name for name in found if name]


def _refuse_made_between(script: Script, trainings: Trainings, names: list[str]) -> None:
    """Raise UnclearError for a variable of the module that another training may find made anew, or not yet made."""
    function = trainings.function
    own = parameters_of(function) | local_names(script, function) | set(script.imports)
    first = script.span(trainings.calls[0])[0]
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        for source in sources_of(script, name) if name not in own else ():
            if script.span(source)[0] > first:
                raise UnclearError(
                    f"it trains several times, and line {script.line(source)} makes {name} after the first training, "
                    f"which {function.name.value}() isn't given"
                )


def _globals(script: Script, loop: Loop) -> set[str]:
    """Return the variables of the module that the functions of a loop may set."""
    home = function_of(script, loop.top)
    parts = [home, *in_use(script, loop)] if home is not None else in_use(script, loop)
    return {item.name.value for part in parts for one in script.all(cst.Global, part) for item in one.names}
