"""What a script's own handlers of signals write: that this process is to end is no state of the training.

A handler notes that it was called, in a list, a global or an attribute, and the loop saves and stops where it sees it.
Kept with that save, the note would have each later start stop at its first step.
"""

from __future__ import annotations

import dis
import signal
from collections import deque
from collections.abc import Iterator
from typing import Any

from vaultlayer_hf.state.attributes import has_attributes
from vaultlayer_hf.state.functions import NamesRead, functions_of, is_own

_STORES = ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF")


def written_by_handlers() -> tuple[set[int], set[str]]:
    """Return the ids of the objects that the handlers of signals may change, and the names that they assign."""
    ids: set[int] = set()
    names: set[str] = set()
    for handler in _handlers():
        owner = getattr(handler, "__self__", None)
        ids |= {id(owner)} if owner is not None else set()
        for function in functions_of(handler) if callable(handler) else ():
            if is_own(function):
                read = NamesRead(function).every().values()
                ids |= {
                    id(one)
                    for one in read
                    if isinstance(one, (list, dict, set, deque)) or has_attributes(one)
                }
                names |= {one.argval for one in dis.get_instructions(function) if one.opname in _STORES}
    return ids, names


def _handlers() -> Iterator[Any]:
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        yield handler
        # Ours, which calls the script's behind it.
        yield from getattr(getattr(handler, "__self__", None), "replaced", {}).values()
