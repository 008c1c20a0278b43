"""The copies of a state that are made beside a training, as tests of both seams see them.

copies = note_copies(monkeypatch)   the size of each that is made from here on, in bytes
slow_copy(monkeypatch)              each begins late
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from vaultlayer_hf.state.capture.copying import StateCopy


def note_copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that each copy from here on adds its size to, in bytes."""
    made: list[int] = []
    start = StateCopy.start

    def noted(self: StateCopy, *args: Any, **how: Any) -> None:
        made.append(self.size)
        start(self, *args, **how)

    monkeypatch.setattr(StateCopy, "start", noted)
    return made


def slow_copy(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.3) -> None:
    """Have each copy beside the training begin late, behind the next forward and backward pass."""
    run = StateCopy.run

    def late(self: StateCopy, pairs: Any) -> None:
        time.sleep(seconds)
        run(self, pairs)

    monkeypatch.setattr(StateCopy, "run", late)
