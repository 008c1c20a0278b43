"""Where values of a script's own are held by a name, to read them there and to put others there.

In the variables that a function reads beside its arguments; in what a class, a module, a function or a partial holds;
in attributes of an object. Nothing is called that is the script's own.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Collection
from types import CodeType, FunctionType
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.assigned_names import names_assigned
from vaultlayer_hf.state.generator_states import GENERATORS
from vaultlayer_hf.state.object_kinds import NO_STATE, attributes_of, has_attributes

_CLOCKS = (time.time, time.monotonic, time.perf_counter)
_LASTING = (list, dict, set, deque, torch.Tensor, numpy.ndarray, *GENERATORS)
"""What a default of an argument can be that changes from call to call."""


class FunctionVariables:
    """What a function reads beside its arguments, by the names in it: globals and what its closure holds.

    And defaults of its arguments that can be changed, as ``seen=[]``: they last from call to call. Modules, classes
    and other functions aren't among it.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def values(self) -> dict[str, Any]:
        """Return it by the names."""
        return {name: value for name, value in self.every().items() if not isinstance(value, NO_STATE)}

    def every(self) -> dict[str, Any]:
        """Return it with the modules, classes and functions."""
        code, every = self._function.__code__, self._function.__globals__
        found = {name: every[name] for name in sorted(names_in_code(code)) if name in every}
        for name, cell in self._cells().items():
            with contextlib.suppress(ValueError):  # nothing is in it yet
                found[name] = cell.cell_contents
        return self._defaults() | found

    def names(self) -> frozenset[str]:
        """Return the names of globals and attributes in it."""
        return names_in_code(self._function.__code__)

    def value_of(self, name: str) -> Any:
        """Return what one name stands for; None where nothing is."""
        if name in (cells := self._cells()):
            with contextlib.suppress(ValueError):
                return cells[name].cell_contents
        return self._function.__globals__.get(name)

    def assigned(self) -> list[str]:
        """Return those of the names that the function assigns."""
        code, every = self._function.__code__, {*self._function.__globals__, *self._cells()}
        return sorted(names_assigned(code) & every & {*names_in_code(code), *code.co_freevars})

    def timed(self) -> frozenset[str]:
        """Return the names that the function assigns, if it reads a clock: what these hold may be such a reading."""
        reads = any(
            one is time or one in _CLOCKS for one in self.every().values() if callable(one) or one is time
        )
        return names_assigned(self._function.__code__) if reads else frozenset()

    def put(self, name: str, value: Any) -> None:
        """Have a name stand for this."""
        if self.every().get(name) is value:
            return
        if name in (cells := self._cells()):
            cells[name].cell_contents = value
        elif name not in self._function.__globals__ and self._put_default(name, value):
            return  # else the name may be that of an attribute in the code as well
        elif name in names_in_code(self._function.__code__):
            self._function.__globals__[name] = value

    def _places_of_defaults(self) -> dict[str, int]:
        code, count = self._function.__code__, len(self._function.__defaults__ or ())
        return {code.co_varnames[code.co_argcount - count + place]: place for place in range(count)}

    def _defaults(self) -> dict[str, Any]:
        values = self._function.__defaults__ or ()
        found = {name: values[place] for name, place in self._places_of_defaults().items()}
        found |= self._function.__kwdefaults__ or {}
        return {name: one for name, one in found.items() if isinstance(one, _LASTING) or has_attributes(one)}

    def _put_default(self, name: str, value: Any) -> bool:
        """Have an argument's default be this; return whether there is such a default."""
        if name in (named := self._function.__kwdefaults__ or {}):
            named[name] = value
        elif name in (places := self._places_of_defaults()):
            values = list(self._function.__defaults__ or ())
            values[places[name]] = value
            self._function.__defaults__ = tuple(values)
        else:
            return False
        return True

    def _cells(self) -> dict[str, Any]:
        return dict(zip(self._function.__code__.co_freevars, self._function.__closure__ or (), strict=True))


class Members:
    """What a class, a module, a function or a partial holds by itself.

    Args:
        thing: which.
        names: those that count; None: all.
    """

    def __init__(self, thing: Any, names: Collection[str] | None = None) -> None:
        self._thing, self._names = thing, names

    def values(self) -> dict[str, Any]:
        """Return it by the names, but for what describes a class."""
        return {
            name: value
            for name, value in list(self._held().items())
            if (self._names is None or name in self._names)
            and isinstance(name, str)
            and not name.startswith(("__", "_vaultlayer"))
            and not (isinstance(value, NO_STATE) or hasattr(type(value), "__get__"))
        }

    def put(self, name: str, value: Any) -> None:
        """Have a name stand for this."""
        if self.values().get(name) is value:
            return
        if isinstance(self._thing, functools.partial):
            self._bind(self._thing, name, value)
        else:
            setattr(self._thing, name, value)

    @staticmethod
    def _bind(partial: functools.partial[Any], name: str, value: Any) -> None:
        if not name.isdigit():
            partial.keywords[name] = value
            return
        arguments = list(partial.args)
        arguments[int(name)] = value
        # The only way to exchange a bound argument in the partial itself, which others hold.
        partial.__setstate__((partial.func, tuple(arguments), partial.keywords, vars(partial)))  # type: ignore[attr-defined]

    def _held(self) -> dict[str, Any]:
        if isinstance(self._thing, functools.partial):
            places = {str(place): value for place, value in enumerate(self._thing.args)}
            return places | self._thing.keywords
        return attributes_of(self._thing) if has_attributes(self._thing) else dict(vars(self._thing))


class Attributes:
    """Chosen attributes of an object.

    Args:
        thing: which.
        chosen: returns those that count, by their names.
    """

    def __init__(self, thing: Any, chosen: Callable[[Any], dict[str, Any]]) -> None:
        self.thing, self._chosen = thing, chosen

    def values(self) -> dict[str, Any]:
        """Return them by their names."""
        return self._chosen(self.thing)

    def put(self, name: str, value: Any) -> None:
        """Set the attribute ``name``."""
        if self.values().get(name) is value:
            return
        if isinstance(self.thing, torch.nn.Module):  # it has its buffers elsewhere
            setattr(self.thing, name, value)
        else:
            object.__setattr__(self.thing, name, value)  # also of a frozen dataclass


Place = FunctionVariables | Members | Attributes


@functools.cache
def names_in_code(code: CodeType) -> frozenset[str]:
    """Return the names of globals and attributes in a function, and in those within it."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return frozenset(code.co_names).union(*map(names_in_code, inner))
