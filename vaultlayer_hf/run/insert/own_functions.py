"""Functions of a script's own: which one a call leads to, and what its names stand for while that call is followed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence, Set
from typing import Any

from vaultlayer_hf.run.insert import cst
from vaultlayer_hf.run.insert.class_methods import MethodsOfClasses
from vaultlayer_hf.run.insert.source import Script, dotted

_DEPTH = 5
"""Calls that are followed within each other."""
OF_MODULES = (
    "parameters",
    "named_parameters",
    "buffers",
    "named_buffers",
    "load_state_dict",
    "state_dict",
    "requires_grad_",
)
"""Methods by which a module is known."""


@functools.lru_cache(maxsize=2)  # each walk asks for them
def functions_of(script: Script) -> OwnFunctions:
    """Return the functions and methods that a script defines."""
    return OwnFunctions(script)


class OwnFunctions:
    """The functions and methods that a script defines; of two of one name the first that the call can lead to."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._functions: dict[str, Any] = {}
        for one in script.all(cst.FunctionDef):
            self._functions.setdefault(one.name.value, one)
        self._methods = MethodsOfClasses(script)

    def called(self, call: Any, within: Sequence[Any]) -> Any:
        """Return the function that a call leads to, of methods those that are called on ``self``; else None.

        ``within``: the functions in which the call was met. Those aren't followed again, nor more than a few at a time.
        """
        name = dotted(call.func)
        first, dot, rest = name.partition(".")
        on_self = bool(dot) and first == "self"
        function = self._functions.get(rest if on_self else name)
        if on_self and function is not None:
            function = self._methods.called(call, rest, within) or function
        if function is None or any(function is one for one in within) or len(within) >= _DEPTH:
            return None
        home = [
            one for one in self._script.around(function) if isinstance(one, (cst.ClassDef, cst.FunctionDef))
        ]
        method = bool(home) and isinstance(home[0], cst.ClassDef)
        return function if method == bool(dot) else None

    def stand_for(
        self, function: Any, call: Any, assigned: Set[str], named: Callable[[str], str]
    ) -> dict[str, str]:
        """Return what each of a function's own names stands for within a call of it; ``""`` for one of nothing outside.

        ``assigned``: names that the function assigns; ``named``: what a name at the call is called outside.
        """
        listed = [one.name.value for one in (*function.params.posonly_params, *function.params.params)]
        keywords = [one.name.value for one in function.params.kwonly_params]
        given: dict[str, str] = {}
        if isinstance(call.func, cst.Attribute) and listed:
            given[listed.pop(0)] = "self"
        placed = [one.value for one in call.args if one.keyword is None and not one.star]
        for name, value in zip(listed, placed, strict=False):
            given[name] = named(_object(value))
        for one in call.args:
            if one.keyword is not None:
                given[one.keyword.value] = named(_object(one.value))
        names = dict.fromkeys([*listed, *keywords], "") | given
        shared = {
            item.name.value
            for kind in (cst.Global, cst.Nonlocal)
            for one in self._script.all(kind, function.body)
            for item in one.names
        }
        for one in assigned:
            if one not in shared:
                names.setdefault(one, "")
        return names


def _object(value: Any) -> str:
    """Return the name of what is given; of a module's parameters that of the module."""
    if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
        return dotted(value.func.value) if value.func.attr.value in OF_MODULES else ""
    return dotted(value)


def parameters_of(function: Any) -> set[str]:
    """Return the names of a function's parameters."""
    listed = function.params
    found = [
        *listed.posonly_params,
        *listed.params,
        *listed.kwonly_params,
        listed.star_arg,
        listed.star_kwarg,
    ]
    return {one.name.value for one in found if isinstance(one, cst.Param)}
