"""Generators whose place can't be followed, as users' own classes sometimes are."""

from __future__ import annotations

import random
from typing import Any


class ForgetfulRandom(random.Random):
    """A generator whose state can be had ``good`` times, and raises RuntimeError from then on."""

    def __init__(self, good: int) -> None:
        super().__init__(5)
        self.good = good

    def getstate(self) -> Any:
        """Return the state, or raise."""
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("no state")
        return super().getstate()
