"""Where functions of a script's own keep what they change: what they read beside their arguments, and all that names.

A loss counts in a global, in a closure, or in a helper's global that it only calls; in an attribute of its class, of
itself, or of a module that it imports. So the functions are followed from one to the next, as far as they name each
other and are the script's own. Nothing is called.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from types import CodeType, FunctionType, ModuleType
from typing import Any

from vaultlayer_hf.state.object_kinds import GENERATORS, NO_STATE, OURS, is_of_script, is_own_file

_MOST = 300
"""Functions that are followed at most: this runs at each save."""


class NamesRead:
    """What a function reads beside its arguments, by the names in it: globals and what its closure holds.

    Modules, classes and other functions aren't among it.
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
        return found

    def put(self, name: str, value: Any) -> None:
        """Have a name stand for this."""
        if name in (cells := self._cells()):
            cells[name].cell_contents = value
        else:
            self._function.__globals__[name] = value

    def _cells(self) -> dict[str, Any]:
        return dict(zip(self._function.__code__.co_freevars, self._function.__closure__ or (), strict=True))


class NamesHeld:
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
            and not name.startswith(("__", "_vaultlayer"))
            and not (isinstance(value, NO_STATE) or hasattr(type(value), "__get__"))
        }

    def put(self, name: str, value: Any) -> None:
        """Have a name stand for this."""
        if self.values().get(name) is value:
            return
        if isinstance(self._thing, functools.partial):
            self._thing.keywords[name] = value
        else:
            setattr(self._thing, name, value)

    def _held(self) -> dict[str, Any]:
        if isinstance(self._thing, functools.partial):
            places = {str(place): value for place, value in enumerate(self._thing.args)}
            return places | self._thing.keywords
        return dict(vars(self._thing))


Place = NamesRead | NamesHeld


def reached(things: Iterable[Any]) -> dict[str, Place]:
    """Return where the script's own functions keep something, by names for people.

    ``things``: functions, or objects, of whose class the script's own functions are looked at.

    >>> counts = [0]
    >>> def loss(out): counts[0] += 1
    >>> reached([loss])["loss"].values()
    {'counts': [0]}
    """
    places: dict[str, Place] = {}
    waiting: deque[Any] = deque(things)
    modules: dict[str, tuple[ModuleType, set[str]]] = {}
    seen: dict[int, Any] = {}  # the objects, so that their ids don't become another's
    count = 0
    while waiting and count < _MOST:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, functools.partial):
            _add(places, _name_of(thing.func), NamesHeld(thing))
        for cls in _classes(thing):
            if id(cls) not in seen or cls is thing:
                seen[id(cls)] = cls
                _add(places, f"{cls.__module__}.{cls.__qualname__}", NamesHeld(cls))
        for function in functions_of(thing):
            if not is_own(function) or (function is not thing and id(function) in seen):
                continue
            seen[id(function)] = function
            count += 1
            read = NamesRead(function)
            _add(places, _name_of(function), read)
            _add(places, f"{_name_of(function)}()", NamesHeld(function))
            names = names_in_code(function.__code__)
            for value in read.every().values():
                if isinstance(value, ModuleType) and _is_own_module(value):
                    modules.setdefault(value.__name__, (value, set()))[1].update(names)
                    here = vars(value)
                    waiting += [here[name] for name in sorted(names) if _leads_on(here.get(name))]
                elif _leads_on(value):
                    waiting.append(value)
    for name, (module, read_of_it) in modules.items():
        _add(places, name, NamesHeld(module, read_of_it))
    return places


def generators_read(thing: Any) -> dict[str, Any]:
    """Return the random generators among what an object's functions read, by ``<function>.<name>``."""
    return {
        f"{function}.{name}": value
        for function, names in reached([thing]).items()
        for name, value in names.values().items()
        if isinstance(value, GENERATORS)
    }


def names_in(thing: Any) -> set[str]:
    """Return the names of globals and attributes in the script's own functions of an object's class."""
    return {name for function in functions_of(thing) for name in names_in_code(function.__code__)}


@functools.cache
def names_in_code(code: CodeType) -> frozenset[str]:
    """Return the names of globals and attributes in a function, and in those within it."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return frozenset(code.co_names).union(*map(names_in_code, inner))


def functions_of(thing: Any) -> Iterator[FunctionType]:
    """Yield a function itself, that of a partial or a method, or the script's own ones of a class or an object's."""
    thing = getattr(thing, "func", thing)  # of a partial
    thing = getattr(thing, "__func__", thing)
    if isinstance(thing, FunctionType):
        yield thing
        return
    # A transform of ``datasets``, which is called for each row.
    transform = (getattr(thing, "__dict__", {}).get("_format_kwargs") or {}).get("transform")
    if isinstance(transform, FunctionType):
        yield transform
    for cls in _classes(thing):
        for member in vars(cls).values():
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(member, FunctionType):
                yield member


def _classes(thing: Any) -> list[type]:
    """Return the script's own classes of an object, or of a class."""
    if isinstance(thing, (FunctionType, functools.partial)):
        return []
    every = (thing if isinstance(thing, type) else type(thing)).__mro__
    return [cls for cls in every if is_of_script(cls) and not issubclass(cls, Enum)]


def _leads_on(value: Any) -> bool:
    if isinstance(value, type):
        return is_of_script(value)
    return isinstance(value, (FunctionType, functools.partial))


def _is_own_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and is_own_file(str(file)) and module.__name__.partition(".")[0] != OURS


def is_own(function: FunctionType) -> bool:
    """Tell whether a function is the script's own."""
    return is_own_file(function.__code__.co_filename) and function.__module__.partition(".")[0] != OURS


def _name_of(function: Any) -> str:
    name: str = getattr(function, "__qualname__", type(function).__name__)
    return name.rpartition("<locals>.")[2]


def _add(places: dict[str, Place], name: str, place: Place) -> None:
    """Add a place under a name that no other has, also where it is still empty."""
    count = 1
    while (found := name + f"[{count}]" * (count > 1)) in places:
        count += 1
    places[found] = place
