"""Variables of the loop that trains, while one of its callbacks is called: some numbers are nowhere else.

They have the same names in all versions, and in copies of the loop that other libraries run.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def local_of_loop(trainer: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return what a variable holds in the innermost method of a Trainer that has one of this kind; else None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_code.co_varnames
        if name in names and "self" in names:
            found = frame.f_locals.get(name)
            if isinstance(found, kind) and frame.f_locals.get("self") is trainer:
                return found
        frame = frame.f_back
    return None
