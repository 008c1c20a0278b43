"""The cells of a notebook: whether one runs here, and when it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def shell() -> Any:
    """Return the IPython shell that this runs in, or None."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def at_end_of_cells(call: Callable[[bool], None]) -> Callable[[], None]:
    """Call it at the end of each cell from now on, with whether an error has ended the cell; nowhere but in a notebook.

    Returns what ends that; safe to call twice.
    """
    found = shell()
    if found is None:
        return lambda: None

    def ended(result: Any = None) -> None:
        call(getattr(result, "error_in_exec", None) is not None)

    found.events.register("post_run_cell", ended)
    left: list[bool] = []

    def leave() -> None:
        if not left:
            left.append(True)
            found.events.unregister("post_run_cell", ended)

    return leave
