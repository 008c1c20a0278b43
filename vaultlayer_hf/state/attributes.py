"""What objects of a script's own keep in their attributes: looked at twice, to tell what training changes.

A callback's average, a trainer's counter, a queue of what was seen: a checkpoint holds none of these. Whether the
training hangs on them can't be told from outside, but whether they move can. Nothing is called that is the script's
own, and of what is large some places are looked at.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import random
import sys
import sysconfig
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy
import torch

from vaultlayer_hf.state.tensor_digests import digest_tensors

Prints = dict[str, Any]
"""What was seen at each place, by its path, such as ``Average.shadow``: equal where nothing has changed."""
_PLACES = 64
"""Places of a container, and rows of a tensor, that are looked at: its first and last ones, and some between."""
_SMALL = 1 << 16
"""Values of a tensor up to which all of it is looked at."""
DEPTH = 3
"""How deep objects within objects are looked at."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
GENERATORS = (torch.Generator, random.Random, numpy.random.Generator, numpy.random.RandomState)
"""Random generators whose state can be taken and put back."""
NO_STATE = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)
"""What a script holds and never changes."""
_ALSO_OURS = "vaultlayer_hf"


def is_of_script(cls: type) -> bool:
    """Tell whether a class is the script's own: neither of an installed package nor of Python nor of ours."""
    name = cls.__module__
    if name.partition(".")[0] in (_ALSO_OURS, "builtins") or name in sys.builtin_module_names:
        return False
    return _is_own_file(getattr(sys.modules.get(name), "__file__", None) or "")


@functools.lru_cache(4096)  # of every object at every save, and get_paths() takes 0.2 ms
def _is_own_file(file: str) -> bool:
    installed = any(part in file for part in ("site-packages", "dist-packages"))
    return not installed and not file.startswith(sysconfig.get_paths()["stdlib"])


class NamesRead:
    """What a function reads beside its arguments, by the names in it: globals and what its closure holds.

    Modules, classes and other functions aren't among it.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def values(self) -> dict[str, Any]:
        """Return it by the names."""
        code, every = self._function.__code__, self._function.__globals__
        found = {name: every[name] for name in _globals_in(code) if name in every}
        for name, cell in self._cells().items():
            with contextlib.suppress(ValueError):  # nothing is in it yet
                found[name] = cell.cell_contents
        return {name: value for name, value in found.items() if not isinstance(value, NO_STATE)}

    def put(self, name: str, value: Any) -> None:
        """Have a name stand for this."""
        if name in (cells := self._cells()):
            cells[name].cell_contents = value
        else:
            self._function.__globals__[name] = value

    def _cells(self) -> dict[str, Any]:
        return dict(zip(self._function.__code__.co_freevars, self._function.__closure__ or (), strict=True))


def names_read(thing: Any) -> dict[str, NamesRead]:
    """Return what the script's own functions read beside their arguments, by their names.

    ``thing``: a function, or an object, of whose class the script's own functions are looked at.

    >>> counts = [0]
    >>> def loss(out): counts[0] += 1
    >>> names_read(loss)["loss"].values()
    {'counts': [0]}
    """
    found: dict[str, NamesRead] = {}
    for function in _functions(thing):
        inside = _is_own_file(function.__code__.co_filename)
        if not inside or function.__module__.partition(".")[0] == _ALSO_OURS:
            continue
        read = NamesRead(function)
        if read.values():
            found[function.__qualname__.rpartition("<locals>.")[2]] = read
    return found


def names_in(thing: Any) -> set[str]:
    """Return the names of globals and attributes in the script's own functions of an object's class."""
    return {name for function in _functions(thing) for name in _globals_in(function.__code__)}


def generators_read(thing: Any) -> dict[str, Any]:
    """Return the random generators among what an object's functions read, by ``<function>.<name>``."""
    return {
        f"{function}.{name}": value
        for function, names in names_read(thing).items()
        for name, value in names.values().items()
        if isinstance(value, GENERATORS)
    }


def _functions(thing: Any) -> Iterator[FunctionType]:
    thing = getattr(thing, "func", thing)  # of a partial
    thing = getattr(thing, "__func__", thing)
    if isinstance(thing, FunctionType):
        yield thing
        return
    # A transform of ``datasets``, which is called for each row.
    transform = (getattr(thing, "__dict__", {}).get("_format_kwargs") or {}).get("transform")
    if isinstance(transform, FunctionType):
        yield transform
    for cls in type(thing).__mro__:
        if is_of_script(cls):
            for member in vars(cls).values():
                member = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if isinstance(member, FunctionType):
                    yield member


def _globals_in(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_globals_in, inner))


def own_attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that no library's class of it ever assigns."""
    found = vars(thing)
    known: set[str] = set()
    for cls in type(thing).__mro__:
        if not is_of_script(cls):
            known |= _assigned(cls)
    return {name: value for name, value in list(found.items()) if name not in known}


@functools.cache
def _assigned(cls: type) -> frozenset[str]:
    """Return the names of attributes that the methods of a class assign, also inside their decorators."""
    found: set[str] = set()
    for member in vars(cls).values():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        code = getattr(inspect.unwrap(member) if callable(member) else member, "__code__", None)
        if code is not None:
            found.update(_stored(code))
    return frozenset(found)


def _stored(code: CodeType) -> Iterator[str]:
    yield from (one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _stored(inner)


def print_of(tensor: torch.Tensor) -> Any:
    """Return something that is equal as long as a tensor is; of a large one some rows are looked at."""
    flat = tensor.detach()
    if flat.numel() > _SMALL and flat.dim():
        flat = flat[:: max(1, len(flat) // _PLACES)]
    return tuple(digest_tensors([("", flat)]).values())


def look(things: Mapping[str, Mapping[str, Any]], known: Collection[int]) -> Prints:
    """Return what these attributes hold now.

    Args:
        things: attributes by their names, by the name of the object that has them.
        known: ids of what is carried elsewhere, or is no state: it isn't looked at.
    """
    found: Prints = {}
    for owner, attributes in things.items():
        for name, value in attributes.items():
            seen = print_value(value, known, DEPTH)
            if seen is not None:
                found[f"{owner}.{name}"] = seen
    return found


def moved(then: Prints, now: Prints) -> list[str]:
    """Return the paths that hold something else than then, or that are new. Pure."""
    return [path for path, seen in now.items() if then.get(path) != seen]


def print_value(value: Any, known: Collection[int], depth: int) -> Any:
    """Return something that is equal as long as a value is; None for what isn't looked at."""
    if id(value) in known or depth < 0:
        return None
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value) if value is not None else ("none",)
    if isinstance(value, torch.Tensor):
        return print_of(value)
    if isinstance(value, numpy.ndarray):
        return print_of(torch.from_numpy(value)) if value.dtype.kind in "biuf" else None
    if isinstance(value, GENERATORS):  # they come back
        return None
    if isinstance(value, torch.nn.Module):
        every = [*value.parameters(), *value.buffers()]
        if any(id(one) in known for one in every):  # the model itself, or around it
            return None
        return tuple(map(print_of, every))
    if isinstance(value, torch.optim.Optimizer):
        return _of_items([one for state in value.state.values() for one in state.values()], known, depth)
    if type(value) in _MAPPINGS:
        return _of_mapping(value, known, depth)
    if isinstance(value, (list, tuple, deque)):
        return _of_items(value, known, depth)
    if isinstance(value, (set, frozenset)):
        return ("set", len(value))
    if hasattr(value, "__dict__") and not isinstance(value, type) and is_of_script(type(value)):
        return _of_mapping(vars(value), {*known, id(value)}, depth)
    return None


_MAPPINGS = (dict, defaultdict, OrderedDict)


def _of_items(items: Any, known: Collection[int], depth: int) -> Any:
    length = len(items)
    step = max(1, length // _PLACES)
    seen = tuple(
        print_value(items[place], known, depth - 1)
        for place in (*range(0, length, step), *range(length)[-1:])
    )
    return (length, seen) if not length or any(one is not None for one in seen) else None


def _of_mapping(items: Mapping[Any, Any], known: Collection[int], depth: int) -> Any:
    length = len(items)
    step = max(1, length // _PLACES)
    every = list(items.items())  # its own thread may add to it
    looked = [*every[::step], *every[-1:]]
    seen = tuple((str(key)[:64], print_value(value, known, depth - 1)) for key, value in looked)
    return (length, seen) if not length or any(one is not None for _, one in seen) else None
