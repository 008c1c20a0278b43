"""Variables that a loop hands on from one round to the next: a learning rate, a counter, a patience, an own loader.

What can be assigned comes back as a value. What others may hold a reference to comes back in place, so that they see
it, too: a random generator, anything with ``state_dict``, an object of a class of the script's own (its attributes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.errors import ResumeError
from vaultlayer_hf.loops.carried_values import (
    UNKNOWN,
    There,
    large_attributes,
    objects_there,
    put_variable,
    take_variable,
)
from vaultlayer_hf.loops.made_later import Late
from vaultlayer_hf.state.fingerprints import take_fingerprints

Variables = Callable[[], dict[str, Any]]
_First = tuple[dict[str, Any] | None, There | None]
"""What a variable was as the script had made it: its large attributes, and the objects that it was and held."""


class Carried:
    """The variables of one loop that its checkpoints keep.

    Args:
        events: where to say what can't be kept.
        saved: returns what has files of its own in the checkpoint: objects that hold it leave it out.
    """

    def __init__(self, events: Events, saved: Callable[[], Iterable[Any]] = list) -> None:
        self._events, self._elsewhere = events, saved
        self._loop: dict[str, tuple[Variables, dict[str, _First]]] = {}
        self._of_pass: dict[str, tuple[Variables, dict[str, _First]]] = {}
        self._saved: dict[str, Any] = {}
        self._taken: dict[str, tuple[Variables, dict[str, _First]]] = {}

    def carry(self, now: Variables, in_pass: bool) -> tuple[Any, ...]:
        """Keep what ``now()`` returns with each checkpoint; return that of the resumed checkpoint, else that of now.

        ``in_pass``: they belong to the pass through the data that is about to begin, and are forgotten behind it.
        Raises ResumeError for an object that can't take the state that was saved of it.
        """
        found = now()
        kind = self._of_pass if in_pass else self._loop
        others = {id(one) for one in self._elsewhere()}
        first = {name: _first(value, _around(value, others)) for name, value in found.items()}
        kind["\n".join(found)] = (now, first)
        return tuple(
            self._restored(name, value, self._saved.pop(_key(name, in_pass), None), others)
            for name, value in found.items()
        )

    def take_over(self, earlier: Carried) -> None:
        """Keep what an earlier loop of this process kept, until the script calls ``carry`` again."""
        self._taken = dict(earlier._loop)
        self._loop = {**self._taken, **self._loop}

    def settle(self) -> list[str]:
        """Bring back what was taken over and not asked for since, in place; return the names where that can't be."""
        left, taken = [], self._taken
        self._taken = {}
        others = {id(one) for one in self._elsewhere()}
        for key, kept in taken.items():
            if self._loop.get(key) is not kept:
                continue
            for name, value in kept[0]().items():
                again = self._restored(name, value, self._saved.pop(_key(name, False), None), others)
                if again is not value and _differ(again, value):
                    left.append(name)
        return left

    @staticmethod
    def _restored(name: str, value: Any, saved: Any, others: set[int]) -> Any:
        if saved is None:
            return value
        try:
            return put_variable(saved, value, others)
        except Exception as error:  # an object of the script's own: it raises what it likes
            raise ResumeError(f"{name} can't be brought back: {type(error).__name__}: {error}") from error

    def values(self) -> list[Any]:
        """Return what the variables are now."""
        kept = [*self._loop.values(), *self._of_pass.values()]
        return [value for now, _ in kept for value in now().values()]

    def end_pass(self) -> None:
        """Forget what belonged to the pass that is over, and what a checkpoint has kept of it."""
        self._of_pass.clear()
        of_pass = _key("", True)
        self._saved = {name: value for name, value in self._saved.items() if not name.startswith(of_pass)}

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs."""
        left_out: list[str] = []
        state = dict(self._saved)  # what nobody has asked for yet
        elsewhere = {id(one) for one in self._elsewhere()}
        for in_pass, kind in ((False, self._loop), (True, self._of_pass)):
            for now, first in kind.values():
                for name, value in now().items():
                    large, there = first.get(name, (None, None))
                    state[_key(name, in_pass)] = take_variable(
                        value, name, large, left_out, _around(value, elsewhere), there
                    )
        late = [one for one in left_out if isinstance(one, Late)]
        if lost := [one for one in left_out if not isinstance(one, Late)]:
            self._events.warn_once(
                "carried",
                EventKind.NOTICE,
                f"a resume doesn't bring back {', '.join(lost)}: it has no state that can be saved",
            )
        if late:
            self._events.warn_once(
                "carried late",
                EventKind.NOTICE,
                f"{', '.join(late)} was made behind carry(), and can't be pickled without what is saved elsewhere: a "
                "start that hasn't made it ahead of carry() can't go on from this checkpoint, or from later ones",
            )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have ``carry`` return what was saved, once each.

        What belongs to the pass, too, is brought back twice: ahead of the epoch, whose code may change it before its
        batches, and behind that code. Both are one object in the file, so the first is a copy.
        """
        self._saved = {
            name: copy.deepcopy(value) if _key(name, True) in state else value
            for name, value in state.items()
        }


def _first(value: Any, within: set[int]) -> _First:
    try:
        there = objects_there(value, within)
    except Exception:  # an object of the script's own: a save looks once more
        there = UNKNOWN
    return large_attributes(value), there


def _differ(one: Any, other: Any) -> bool:
    taken = [take_fingerprints({"": {"value": each}}, ()) for each in (one, other)]
    return taken[0] != taken[1]


def _around(value: Any, elsewhere: set[int]) -> set[int]:
    """Return what isn't kept once more: a module that is named itself is, for each rank may have one of its own."""
    return elsewhere if isinstance(value, torch.Tensor) else elsewhere - {id(value)}


def _key(name: str, in_pass: bool) -> str:
    return f"pass/{name}" if in_pass else name
