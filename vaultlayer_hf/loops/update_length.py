"""How many of a loop's steps an update takes: where each batch of it is one, ranks wait for each other only at its end.

So they may be as many steps apart, and what one of them asks for at a step is done by all as many steps later.
"""

from __future__ import annotations

from typing import Any

from vaultlayer_hf.loops.step_hook import after_each_step

_MOST = 32
"""Steps that ranks are taken to be apart at most: a stop waits for as many."""


class UpdateLength:
    """Counts the steps of the updates of a loop.

    Args:
        known: how many batches an update has, where something says so ahead; 0: nothing does. Within the first update
            ranks may be as far apart then as they ever are.
    """

    def __init__(self, known: int = 0) -> None:
        self._newest = self._before = known
        self._since, self._updated = 0, False
        self._hook = after_each_step(self._note)

    def _note(self, *_: Any) -> None:
        self._updated = True

    def step_done(self) -> int:
        """Note that a step is done; return how many the longer one of the last two updates had."""
        self._since += 1
        if self._updated:
            self._newest, self._before = self._since, self._newest
            self._since, self._updated = 0, False
        if not self._newest:  # behind so many steps it is a loop that never updates, or out of sight
            return _MOST if self._since < _MOST else 1
        return min(max(self._newest, self._before), _MOST)

    def leave(self) -> None:
        """Count no more."""
        self._hook.remove()
