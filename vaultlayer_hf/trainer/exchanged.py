"""Which parts a training is made of, to tell what a script exchanges on its way.

No checkpoint says which they are, and each start makes those of the begin.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

from vaultlayer_hf.state.data.inner import data_sets
from vaultlayer_hf.state.functions import functions_of, is_own
from vaultlayer_hf.state.object_kinds import is_of_script, name_of_definition
from vaultlayer_hf.trainer.added_groups import groups_of

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where torch keeps a module's hooks."""
_PARTS = {
    "compute_loss_func": "",
    "compute_metrics": "",
    "lr_scheduler": "scheduler",
    "optimizer": "optimizer",
}
"""Parts of a Trainer that scripts exchange, with the attribute in which accelerate has wrapped them."""
_NUMBERS = (bool, int, float, str)


def parts_of_training(trainer: Any, model: Any) -> dict[str, Any]:
    """Return what a training is made of now, by names for people: equal as long as nothing is exchanged.

    The Trainer's own parts, and the script's own functions that are hooks of the model or stand in for methods of it.
    ``trainer``: None where it isn't known.
    """
    of_model = [
        f"{path} {_name_of(one)}"
        for path, module in model.named_modules()
        for one in (*hooks_of(module, HOOKS), *methods_of(module))
        if any(map(is_own, functions_of(one))) or is_of_script(type(one))
    ]
    found: dict[str, Any] = {"the model's hooks and methods": of_model}
    if trainer is None:
        return found
    cls = type(trainer).__name__
    for name, inside in _PARTS.items():
        part = getattr(trainer, name, None)
        part = getattr(part, inside, part) if inside else part
        functions, groups = getattr(part, "lr_lambdas", ()), groups_of(trainer)
        if functions and groups is not None:
            functions = groups.not_carried(functions)
        found[f"{cls}.{name}"] = [_name_of(part), *map(_with_numbers, functions)]
    smoother = getattr(trainer, "label_smoother", None)
    numbers = getattr(smoother, "__dict__", {}).items()
    found[f"{cls}.label_smoother"] = [
        _name_of(smoother),
        *(one for one in numbers if isinstance(one[1], _NUMBERS)),
    ]
    found |= {f"{cls}.{path}": one for path, one in _transforms(trainer).items()}
    here = trainer.callback_handler.callbacks
    found[f"{cls}'s callbacks"] = [_name_of(one) for one in here if is_of_script(type(one))]
    for name, one in list(vars(trainer).items()):
        if is_method(trainer, name, one) and name not in _PARTS and any(map(is_own, functions_of(one))):
            found[f"{cls}.{name}"] = _name_of(one)
    return found


def _transforms(trainer: Any) -> dict[str, Any]:
    """Return the transforms of libraries' data sets, by names for people: ``set_transform`` exchanges them."""
    found: dict[str, Any] = {}
    for name in ("train_dataset", "eval_dataset"):
        every = getattr(trainer, name, None)
        for data in every.values() if isinstance(every, dict) else [every]:
            for one in data_sets(data):
                transform = (getattr(one, "_format_kwargs", None) or {}).get("transform")
                if transform is not None:
                    found.setdefault(f"{name}'s transform", []).append(_with_numbers(transform))
    return found


def hooks_of(thing: Any, names: Iterable[str]) -> list[Any]:
    """Return the hooks that an object keeps in attributes of these names."""
    return [hook for name in names if (hooks := getattr(thing, name, None)) for hook in hooks.values()]


def methods_of(thing: Any) -> list[Any]:
    """Return the functions that an object has in the place of methods of its class: ``model.forward = mine``."""
    return [one for one in list(getattr(thing, "__dict__", {}).values()) if _is_function(one)]


def is_method(thing: Any, name: str, value: Any) -> bool:
    """Tell whether an attribute of an object stands in for a method of its class."""
    return _is_function(value) and hasattr(type(thing), name)


def _is_function(value: Any) -> bool:
    return isinstance(value, (FunctionType, MethodType, functools.partial))


def _with_numbers(function: Any) -> Any:
    """Return the name of a function of a schedule's or of data, and the numbers that are bound to it."""
    bound = function.keywords.items() if isinstance(function, functools.partial) else ()
    return _name_of(function), [one for one in bound if isinstance(one[1], _NUMBERS)]


def _name_of(value: Any) -> str:
    """Return the name of a function, or of an object's class."""
    if isinstance(value, functools.partial):
        value = value.func
    return ".".join(name_of_definition(value if _is_function(value) else type(value)) or ())
