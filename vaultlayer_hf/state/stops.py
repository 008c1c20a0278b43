"""What says that this process is to end, which is no state of the training.

A script's own handler of a signal notes that it was called, in a list, a global or an attribute; a callback that counts
the hours of a job notes that they are over. The training saves and stops where it sees that. Kept with that save, the
note would have each later start stop at its first step.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vaultlayer_hf.state.assigned_names import names_assigned
from vaultlayer_hf.state.functions import functions_of, is_own
from vaultlayer_hf.state.object_kinds import has_attributes
from vaultlayer_hf.state.places import FunctionVariables, names_in_code

_STOP = "should_training_stop"


def written_by_handlers() -> tuple[set[int], set[str]]:
    """Return the ids of the objects that the handlers of signals may change, and the names that they assign."""
    ids: set[int] = set()
    names: set[str] = set()
    for handler in _handlers():
        owner = getattr(handler, "__self__", None)
        ids |= {id(owner)} if owner is not None else set()
        for function in functions_of(handler) if callable(handler) else ():
            if is_own(function):
                read = FunctionVariables(function).every().values()
                ids |= {
                    id(one)
                    for one in read
                    if isinstance(one, (list, dict, set, deque)) or has_attributes(one)
                }
                names |= names_assigned(function.__code__)
    return ids, names


class StopNotes:
    """Of what a script's own objects hold: what says that this process is to end.

        notes = StopNotes()
        notes.ask(callbacks)
        notes.settle("Hours", vars(hours))  # as long as the training goes on
        notes.among("Hours", vars(hours))  # in the save with which it stops: ["over"]

    Such a note is true, or a text, in that save for the first time, and a stop of the Trainer's hangs on its name.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._settled: set[str] = set()

    def ask(self, things: Iterable[Any]) -> None:
        """Look for the names in what may ask for a stop."""
        self._names = asked_of_a_stop(things)

    def settle(self, owner: str, values: Mapping[str, Any]) -> None:
        """Note what an object holds while the training goes on: it is state."""
        self._settled |= {f"{owner}.{name}" for name in self._notes(values)}

    def among(self, owner: str, values: Mapping[str, Any]) -> list[str]:
        """Return the names of the notes among what an object holds."""
        return [name for name in self._notes(values) if f"{owner}.{name}" not in self._settled]

    def _notes(self, values: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in values.keys() & self._names
            if values[name] is True or (isinstance(values[name], str) and values[name])
        ]


def asked_of_a_stop(things: Iterable[Any]) -> set[str]:
    """Return the names that a script's own functions hang a stop of the Trainer's on.

    They are all that stands in a method which sets ``control.should_training_stop``, and in those of the same object
    that it names.

    >>> class Hours:
    ...     def on_step_end(self, args, state, control):
    ...         if self.over: control.should_training_stop = True
    >>> sorted(asked_of_a_stop([Hours()]))
    ['over', 'should_training_stop']
    """
    names: set[str] = set()
    for thing in things:
        functions = {one.__name__: one.__code__ for one in functions_of(thing) if is_own(one)}
        waiting = [code for code in functions.values() if _STOP in names_assigned(code)]
        while waiting:
            code = waiting.pop()
            new = (names_in_code(code) | set(code.co_freevars)) - names
            names |= new
            waiting += [functions[name] for name in new if name in functions]
    return names


def _handlers() -> Iterator[Any]:
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        yield handler
        # Ours, which calls the script's behind it.
        yield from getattr(getattr(handler, "__self__", None), "replaced", {}).values()
