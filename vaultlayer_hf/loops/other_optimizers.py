"""Optimizers that train a loop's parameters, and that its Checkpointer hasn't got: nobody saves their state.

One was forgotten where the Checkpointer was made, or the script has put it in the place of the first one on its way.
One that is made anew for each round, and ends with it, has nothing that a later round needs: so it counts only once it
has stepped behind a save at which it had a state, or where none of the loop's own steps any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch.optim.lr_scheduler import LRScheduler

from vaultlayer_hf.loops.step_hook import after_each_step
from vaultlayer_hf.state.capture.stepped import held_by, tensors_in
from vaultlayer_hf.state.object_kinds import attributes_of

_DEPTH = 4
"""Objects within objects that are looked into, at most."""
_MANY = 100
"""Members of a container that are looked into: optimizers of one training are fewer."""


class OtherOptimizers:
    """Looks at who steps, from ``begin`` to ``leave``.

    Args:
        known: returns what is saved: the loop's optimizers, without accelerate's wrappers, and what may hold some.
        models: returns its models.
        found: told the name of the class of each that counts, once.

    Attributes:
        names: class names of those that the newest save lacks.
    """

    def __init__(
        self,
        known: Callable[[], Iterable[Any]],
        models: Callable[[], Iterable[torch.nn.Module]],
        found: Callable[[str], None],
    ) -> None:
        self._known, self._models, self._found = known, models, found
        self._stepped: WeakSet[Any] = WeakSet()
        self._lately: WeakSet[Any] = WeakSet()  # since the newest save
        self._kept: WeakSet[Any] = WeakSet()
        self._saved_over: WeakSet[Any] = WeakSet()
        self._counted: WeakSet[Any] = WeakSet()
        self._made: Counter[str] = Counter()  # how many have stepped, by the names of their classes
        self._told: set[str] = set()
        self._hook: Any = None
        self.names: list[str] = []

    def begin(self) -> None:
        """Look from here on."""
        self._hook = after_each_step(self._step)

    def leave(self) -> None:
        """Look no more."""
        if self._hook is not None:
            self._hook.remove()

    def saved(self) -> None:
        """Note that a checkpoint is saved. Never raises: where the script's objects can't be looked at, none counts."""
        lately, self._lately, self._saved_over, self.names = self._lately, WeakSet(), WeakSet(), []
        try:
            over = self._find_others()
        except Exception:  # of a state_dict() of theirs, or of what carry() was given
            return
        self._saved_over = over
        # One that has rested since the save before has done its work, as that of a warm-up.
        counted = {type(one).__name__ for one in self._counted if one in lately}
        # Where none of the loop's own has stepped since, one of the others has taken its place.
        if not any(one in self._kept for one in lately):
            names = {type(one).__name__ for one in over}
            counted |= {name for name in names if not self._comes_and_goes(name)}
        self.names = sorted(counted)

    def _find_others(self) -> WeakSet[Any]:
        """Return those that have a state, train the loop's parameters, and aren't saved."""
        unknown = [one for one in self._stepped if one not in self._kept]
        if unknown:
            mine = {id(one) for kept in self._known() for one in _optimizers_in(kept)}
            for one in unknown:
                if id(one) in mine:
                    self._kept.add(one)
        others = [one for one in unknown if one not in self._kept and one.state]
        if not others:
            return WeakSet()
        trained = {id(one) for model in self._models() for one in model.parameters()}
        return WeakSet(
            one
            for one in others
            if any(id(each) in trained for group in one.param_groups for each in group["params"])
        )

    def _comes_and_goes(self, name: str) -> bool:
        """Tell whether optimizers of this class were there that are gone: one is made anew for each round."""
        return self._made[name] > sum(type(one).__name__ == name for one in self._stepped)

    def _step(self, optimizer: Any, *_: Any) -> None:
        name = type(optimizer).__name__
        if optimizer not in self._stepped:
            self._stepped.add(optimizer)
            self._made[name] += 1
        self._lately.add(optimizer)
        if optimizer in self._saved_over:
            self._saved_over.discard(optimizer)
            self._counted.add(optimizer)
            if name not in self._told:
                self._told.add(name)
                self._found(name)


def _optimizers_in(value: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield the optimizers that a value is or holds; modules and schedules save none."""
    if isinstance(value, torch.optim.Optimizer):
        yield value
    if not depth or isinstance(value, (torch.nn.Module, torch.Tensor, LRScheduler)):
        return
    inside: list[Any] = []
    if isinstance(value, torch.optim.Optimizer):
        inside = [one for one in held_by(value) if _saves(value, one)]
    elif isinstance(value, dict):
        inside = list(value.values())[:_MANY]
    elif isinstance(value, (list, tuple)):
        inside = list(value[:_MANY])
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        inside = list(attributes_of(value).values())
    for one in inside:
        if isinstance(one, (list, tuple, dict)) or hasattr(one, "__dict__"):
            yield from _optimizers_in(one, depth - 1)


def _saves(outer: Any, inner: Any) -> bool:
    """Tell whether an optimizer's state has that of one that it holds: SAM's, as it is mostly written, hasn't."""
    if inner.state is outer.state:
        return True
    kept = {id(one) for one in tensors_in(outer.state_dict())}
    return all(id(one) in kept for state in inner.state.values() for one in tensors_in(state))
