"""Functions of a script, kept by the names by which each start finds them, with the values that are bound to them.

A schedule's ``lr_lambdas`` are such: pickle takes no lambda, and torch saves none. So what is kept says where in the
script's code a function stands, and it is made again of the code that stands there now.

Several functions may stand under one name, as the lambdas of a file do, and be told apart by their order alone. So what
is kept also knows such a code by a digest: after another one has come in ahead of it, it is found all the same.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

_PLAIN = (bool, int, float, str, type(None))
_VERSION = str(sys.implementation.cache_tag)
"""Of the code that this Python makes: another one makes another of the same text."""


def name_function(function: Any) -> dict[str, Any] | None:
    """Return what ``find_function`` needs: only numbers, text, lists, tuples and dictionaries; None: it can't be found.

    Of an object that is called it has the class alone: its attributes are whoever's it is.
    """
    if isinstance(function, functools.partial):
        inner, bound = name_function(function.func), (function.args, function.keywords)
        return {"partial": inner, "bound": bound} if inner is not None and _is_plain(bound) else None
    if not isinstance(function, FunctionType):
        cls = type(function)
        kept = {"module": cls.__module__, "name": cls.__qualname__}
        return {"class": kept} if _found(kept) == [cls] and hasattr(function, "__dict__") else None
    kept = {"module": function.__module__, "name": function.__qualname__}
    found = _found(kept)
    if found == [function]:
        return kept
    cells = [_content(cell) for cell in function.__closure__ or ()]
    values = [cells, function.__defaults__, function.__kwdefaults__]
    same = [number for number, one in enumerate(found) if one == function.__code__]
    own = getattr(sys.modules.get(function.__module__), "__dict__", None) is function.__globals__
    if not (own and same and _is_plain(values)):
        return None
    code = [_VERSION, _digest_of(function.__code__)]
    return {**kept, "number": same[0], "among": len(found), "code": code, "values": values}


def find_function(kept: Mapping[str, Any]) -> Any:
    """Return the function that this was kept of. Raises LookupError where the script's code has it no more."""
    if "partial" in kept:
        args, keywords = kept["bound"]
        return functools.partial(find_function(kept["partial"]), *args, **keywords)
    found = _found(kept.get("class", kept))
    try:
        one = found[_number_of(kept, found)]
        if "class" in kept:
            return one.__new__(one)
        if not isinstance(one, CodeType):
            return one
        cells, defaults, named = kept["values"]
        closure = tuple(CellType(value) for value in cells)
        made = FunctionType(
            one, vars(sys.modules[kept["module"]]), one.co_name, defaults and tuple(defaults), closure
        )
    except (IndexError, TypeError, ValueError, AttributeError) as error:  # that code is another one now
        raise LookupError(f"{kept.get('class', kept)['name']}: {error}") from error
    made.__kwdefaults__, made.__qualname__, made.__module__ = named, kept["name"], kept["module"]
    return made


def _number_of(kept: Mapping[str, Any], found: list[Any]) -> int:
    """Return which of those under its name a function is now. Raises LookupError where none is, or it isn't known."""
    number: int = kept.get("number", 0)
    version, digest = kept.get("code", ("", ""))  # earlier versions kept none
    now = [_digest_of(one) for one in found] if version == _VERSION else []
    if not now or digest in now[number : number + 1]:
        return number
    if digest in now:
        return now.index(digest)
    if len(now) == kept["among"] == 1:  # somebody has edited it
        return 0
    raise LookupError(
        f"{kept['name']}: none of the {len(now)} of this name has the code that it had; give it a name by def"
    )


def _digest_of(code: Any) -> str:
    """Return a digest of what a code does, wherever it stands; of anything else nothing."""
    if not isinstance(code, CodeType):
        return ""
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    more = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    takes = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, more
    text = repr((code.co_code, names, takes, [_constant(one) for one in code.co_consts]))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _digest_of(value)
    if isinstance(value, (tuple, frozenset)):
        parts = [_constant(one) for one in value]
        # A set's order is each process's own.
        return repr(parts if isinstance(value, tuple) else sorted(parts))
    return f"{type(value).__name__} {value!r}"


def _found(kept: Mapping[str, Any]) -> list[Any]:
    """Return what stands under a qualified name: an object of the module, or codes within one of its functions."""
    found: list[Any] = [sys.modules.get(kept["module"])]
    for part in kept["name"].replace(".<locals>", "").split("."):
        found = [inside for one in found for inside in _inside(one, part)]
    return found


def _inside(one: Any, name: str) -> list[Any]:
    if isinstance(one, FunctionType):
        one = one.__code__
    if isinstance(one, CodeType):
        return [code for code in one.co_consts if isinstance(code, CodeType) and code.co_name == name]
    if isinstance(one, ModuleType) and name.startswith("<"):  # as <lambda>: no name of the module leads to it
        return _codes_in_file(one, name)
    if name not in getattr(one, "__dict__", {}):
        return []
    inside = one.__dict__[name]
    return [inspect.unwrap(getattr(inside, "__func__", inside))]


def _codes_in_file(module: ModuleType, name: str) -> list[Any]:
    """Return the codes of this name that stand at the top of a module, as its file has them now."""
    try:
        code = compile(inspect.getsource(module), module.__file__ or "", "exec", dont_inherit=True)
    except (OSError, TypeError, SyntaxError, ValueError):  # a notebook has none
        return []
    return [one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty so far
        return cell


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(one) for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN
