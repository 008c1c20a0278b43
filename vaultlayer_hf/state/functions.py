"""Where functions of a script's own keep what they change: what they read beside their arguments, and all that names.

A loss counts in a global, in a closure, or in a helper's global that it only calls; in an attribute of its class, of
itself, or of a module that it imports. So the functions are followed from one to the next, as far as they name each
other and are the script's own. Nothing is called.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

from vaultlayer_hf.state.object_kinds import (
    CONTAINERS,
    OURS,
    attributes_of,
    has_attributes,
    is_of_script,
    is_own_file,
    own_attributes,
)
from vaultlayer_hf.state.places import FunctionVariables, Members, Place, names_in_code

_MOST, _MOST_OBJECTS = 300, 300
"""Functions, and objects, that are followed at most: this runs at each save."""
_ITEMS, _DEEP = 64, 3
"""Items of a container, and containers within containers, in which functions are looked for."""
_WRAPPERS = 16
"""Decorators on one function that are looked through."""


def reached(things: Iterable[Any], apart: Collection[Any] = ()) -> dict[str, Place]:
    """Return where the script's own functions keep something, by names for people.

    Args:
        things: functions, or objects, of whose class the script's own functions are looked at.
        apart: objects that aren't followed where something leads to them, as the caller looks after them elsewhere.

    >>> counts = [0]
    >>> def loss(out): counts[0] += 1
    >>> reached([loss])["loss"].values()
    {'counts': [0]}
    """
    return _Search(things, apart).run()


class _Search:
    """Goes from functions and objects to those that they lead to, and notes where something is kept."""

    def __init__(self, things: Iterable[Any], apart: Collection[Any]) -> None:
        self._places: dict[str, Place] = {}
        self._waiting = deque(things)
        self._known = {id(thing) for thing in self._waiting}  # whose attributes the caller looks at
        # The objects, so that their ids don't become another's.
        self._seen = {id(thing): thing for thing in apart}
        self._read: dict[str, tuple[ModuleType, set[str]]] = {}  # of each module, the names that are read
        self._functions = self._objects = 0

    def run(self) -> dict[str, Place]:
        """Return the places by names for people."""
        while self._waiting and self._functions < _MOST:
            thing = self._waiting.popleft()
            if id(thing) not in self._seen:
                self._seen[id(thing)] = thing
                self._visit(thing)
        for name, (module, names) in self._read.items():
            self._add(name, Members(module, names))
        return self._places

    def _visit(self, thing: Any) -> None:
        if isinstance(thing, functools.partial):
            self._add(_name_of(thing.func), Members(thing))
            self._waiting += _led_to([*thing.args, *thing.keywords.values()])
        elif isinstance(thing, MethodType):
            self._visit_owner(thing.__self__)
        elif self._objects < _MOST_OBJECTS and is_of_script(type(thing)) and not isinstance(thing, type):
            self._objects += 1
            self._waiting += _led_to(_attributes(thing))
        # A transform of ``datasets``, which is called for each row.
        transform = (getattr(thing, "__dict__", {}).get("_format_kwargs") or {}).get("transform")
        self._waiting += _led_to(transform)
        for cls in _classes(thing):
            if id(cls) not in self._seen or cls is thing:
                self._seen[id(cls)] = cls
                self._add(f"{cls.__module__}.{cls.__qualname__}", Members(cls))
        for function in functions_of(thing):
            if is_own(function) and (function is thing or id(function) not in self._seen):
                self._visit_function(function)

    def _visit_owner(self, owner: Any) -> None:
        """Look at the object of a method."""
        new = id(owner) not in self._known and id(owner) not in self._seen
        if new and not isinstance(owner, torch.nn.Module) and has_attributes(owner):
            self._known.add(id(owner))
            self._add(type(owner).__name__, Members(owner))
        self._waiting += _led_to(owner)

    def _visit_function(self, function: FunctionType) -> None:
        self._seen[id(function)] = function
        self._functions += 1
        variables = FunctionVariables(function)
        self._add(_name_of(function), variables)
        self._add(f"{_name_of(function)}()", Members(function))
        names = names_in_code(function.__code__)
        for value in variables.every().values():
            self._follow(value, names)

    def _follow(self, value: Any, names: Collection[str]) -> None:
        """Go to what a value leads to; of a module of the script's own, to what stands there by these names."""
        if not (isinstance(value, ModuleType) and _is_own_module(value)):
            self._waiting += _led_to(value)
            return
        read = self._read.setdefault(value.__name__, (value, set()))[1]
        new = set(names) - read
        read |= new
        for name in sorted(new):
            self._follow(vars(value).get(name), names)

    def _add(self, name: str, place: Place) -> None:
        """Add a place under a name that no other has, also where it is still empty."""
        count = 1
        while (found := name + f"[{count}]" * (count > 1)) in self._places:
            count += 1
        self._places[found] = place


def names_in(thing: Any) -> set[str]:
    """Return the names of globals and attributes in the script's own functions of an object's class."""
    return {name for function in functions_of(thing) for name in names_in_code(function.__code__)}


def functions_of(thing: Any) -> Iterator[FunctionType]:
    """Yield a function itself, that of a partial or a method, or the script's own ones of a class or an object's.

    And those that decorators have wrapped: what ``@torch.no_grad()`` makes of a function is torch's.
    """
    if isinstance(thing, functools.partial):
        thing = thing.func
    if found := list(_unwrapped(thing)):
        yield from found
        return
    for cls in _classes(thing):
        for member in vars(cls).values():
            yield from _unwrapped(member)


def _unwrapped(member: Any) -> Iterator[FunctionType]:
    """Yield the function that a member of a class is, and those within its decorators."""
    for _ in range(_WRAPPERS):
        if isinstance(member, functools.cached_property):
            member = member.func
        elif isinstance(member, property):
            member = member.fget
        else:
            member = getattr(member, "__func__", member)
        if isinstance(member, FunctionType):
            yield member
        elif not isinstance(member, functools._lru_cache_wrapper):
            return
        member = vars(member).get("__wrapped__")


def _classes(thing: Any) -> list[type]:
    """Return the script's own classes of an object, or of a class."""
    if isinstance(thing, (FunctionType, MethodType, functools.partial, functools._lru_cache_wrapper)):
        return []
    every = (thing if isinstance(thing, type) else type(thing)).__mro__
    return [cls for cls in every if is_of_script(cls) and not issubclass(cls, Enum)]


def _led_to(value: Any, depth: int = _DEEP) -> Iterator[Any]:
    """Yield the functions, and the script's own classes and objects, that a value is or that a container has."""
    if isinstance(value, type):
        if is_of_script(value):
            yield value
    elif isinstance(value, (FunctionType, MethodType, functools.partial, functools._lru_cache_wrapper)):
        yield value
    elif isinstance(value, CONTAINERS):
        if depth and len(value) <= _ITEMS:
            for one in list(value.values() if isinstance(value, dict) else value):
                yield from _led_to(one, depth - 1)
    elif is_of_script(type(value)) and not isinstance(value, Enum):
        yield value


def _attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes in which an object of the script's own may hold functions."""
    return own_attributes(thing) if hasattr(thing, "__dict__") else attributes_of(thing)


def _is_own_module(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and is_own_file(str(file)) and module.__name__.partition(".")[0] != OURS


def is_own(function: FunctionType) -> bool:
    """Tell whether a function is the script's own."""
    return is_own_file(function.__code__.co_filename) and function.__module__.partition(".")[0] != OURS


def _name_of(function: Any) -> str:
    name: str = getattr(function, "__qualname__", type(function).__name__)
    return name.rpartition("<locals>.")[2]
