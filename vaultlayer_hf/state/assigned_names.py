"""Which names a function assigns, read from its bytecode.

``dis`` would take 30 ms for the methods of a Trainer alone, for which each start and restart waits. So the bytes of an
operation are looked for instead: in ``co_code`` each instruction has an operation at an even place and a number behind
it, and where the interpreter keeps caches there are zeros.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator, Sequence
from types import CodeType

_ATTRIBUTE, _GLOBAL, _SHARED = (dis.opmap[name] for name in ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF"))
_EXTENDED = dis.opmap["EXTENDED_ARG"]


def attributes_assigned(code: CodeType) -> Iterator[str]:
    """Yield the names of the attributes that a function, or one within it, assigns.

    >>> def count(self): self.seen = total = 1
    >>> list(attributes_assigned(count.__code__))
    ['seen']
    """
    for one in _with_inner(code):
        yield from _stored(one, _ATTRIBUTE, one.co_names)


@functools.cache
def names_assigned(code: CodeType) -> frozenset[str]:
    """Return the names of attributes, of globals and of variables of a closure that a function, or one in it, assigns.

    >>> def count(self): global seen; seen = self.total = local = 1
    >>> sorted(names_assigned(count.__code__))
    ['seen', 'total']
    """
    found: set[str] = set()
    for one in _with_inner(code):
        found.update(_stored(one, _ATTRIBUTE, one.co_names), _stored(one, _GLOBAL, one.co_names))
        # The number of such a variable is its place among all of a call's, where an argument stands once.
        made = [name for name in one.co_cellvars if name not in one.co_varnames]
        found.update(_stored(one, _SHARED, (*one.co_varnames, *made, *one.co_freevars)))
    return frozenset(found)


def _stored(code: CodeType, operation: int, names: Sequence[str]) -> Iterator[str]:
    """Yield what the instructions of an operation name by their numbers."""
    data = code.co_code  # which is made anew each time that it is asked for
    operations = data[::2]
    at = operations.find(operation)
    while at >= 0:
        number, before, shift = data[2 * at + 1], at - 1, 8
        while before >= 0 and operations[before] == _EXTENDED:  # where a number above 255 begins
            number |= data[2 * before + 1] << shift
            before, shift = before - 1, shift + 8
        yield names[number]
        at = operations.find(operation, at + 1)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _with_inner(inner)
