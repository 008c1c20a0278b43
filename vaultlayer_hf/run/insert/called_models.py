"""Which of its parameters a function trains that is called several times: each call may give it another model."""

from __future__ import annotations

import re

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.callers import given_values
from vaultlayer_hf.run.insert.calls import call_that_makes, function_of, method_calls, receiver, sources_of
from vaultlayer_hf.run.insert.loop import UnclearError
from vaultlayer_hf.run.insert.own_classes import classes_of, is_kind
from vaultlayer_hf.run.insert.own_functions import parameters_of
from vaultlayer_hf.run.insert.source import Script, dotted
from vaultlayer_hf.run.insert.trainings import Trainings

_AS_A_MODULE = (
    "train",
    "eval",
    "parameters",
    "named_parameters",
    "state_dict",
    "load_state_dict",
    "zero_grad",
)
_NAMES = re.compile(r"model|net|network")


def is_own(script: Script, trainings: Trainings, optimizer: str) -> bool:
    """Tell whether a function that is called several times is given its optimizer, or makes it."""
    function = trainings.function
    if function is None:
        return False
    made = [one for one in sources_of(script, optimizer) if function_of(script, one) is function]
    return bool(made) or optimizer in parameters_of(function)


def called_models(script: Script, trainings: Trainings, optimizer: str) -> list[str]:
    """Return the models that an optimizer trains in a function that is called several times; none where it isn't seen.

    What an optimizer trains beside them is saved with it.
    """
    function = trainings.function
    made = [one for one in sources_of(script, optimizer) if function_of(script, one) is function]
    texts = " ".join(script.code(one) for one in made)
    parameters = parameters_of(function)
    if made:
        found = dict.fromkeys(re.findall(r"\b([A-Za-z_]\w*)\.(?:named_)?parameters\(\)", texts))
        return [name for name in found if name in parameters]
    called = {dotted(call.func) for call in script.all(cst.Call, function.body)} & parameters
    known = [
        name
        for name in sorted(called)
        if any(
            receiver(call) == name
            for method in _AS_A_MODULE
            for call in method_calls(script, method, function.body)
        )
    ]
    return known or sorted(name for name in called if _NAMES.fullmatch(name))


def called_beside(script: Script, trainings: Trainings, models: list[str]) -> list[str]:
    """Return the other modules that such a function is given and calls: a teacher, whose averages go on if it trains.

    Raises UnclearError for what it is given and calls where it isn't seen what that is.
    """
    function = trainings.function
    classes = classes_of(script)
    functions = {one.name.value for one in script.all(cst.FunctionDef)}
    called = {dotted(call.func) for call in script.all(cst.Call, function.body)} & parameters_of(function)
    found = []
    for name in sorted(called - set(models)):
        for call, value in zip(
            trainings.calls, given_values(script, function, trainings.calls, name), strict=True
        ):
            given = dotted(value) if value is not None else "None"
            path = script.path(value) if given else ""
            if given == "None" or given in functions or path.startswith(("torch.nn.functional.", "torch.")):
                continue
            made = [call_that_makes(one) for one in (sources_of(script, given) if given else [value])]
            paths = [script.path(one.func) if isinstance(one, cst.Call) else "" for one in made]
            own = [one in classes and is_kind(script, classes[one], "Module", classes) for one in paths]
            if not paths or not all(
                kept or one.startswith("torch.nn.") for one, kept in zip(paths, own, strict=True)
            ):
                raise UnclearError(
                    f"it trains several times, and it isn't seen what line {script.line(call)} gives "
                    f"{function.name.value}() for {name}, which is called there"
                )
            if not all(one.endswith("Loss") for one in paths):
                found.append(name)
    return list(dict.fromkeys(found))
