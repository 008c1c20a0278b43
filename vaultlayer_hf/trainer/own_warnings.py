"""What is said of the state of a script's own objects that no checkpoint holds, or that holds for another moment."""

from __future__ import annotations

from collections.abc import Sequence

from vaultlayer_hf.base.events import EventKind, Events

_SHOWN = 3
"""Names that a message holds, at most."""


def warn_of_moved(events: Events, rank: int, names: Sequence[str]) -> None:
    """Say, once, that attributes which training changes are in no checkpoint."""
    if names and not rank:
        events.warn_once(
            "attributes",
            EventKind.INEXACT,
            f"{_some(names)}: training changes these attributes of the script's own objects, and no checkpoint holds "
            "them: they are large, look like a secret, or go with what can't be kept, such as an open file or an "
            "iterator. Behind a resume they begin as the script makes them, and where the training hangs on them the "
            "numbers differ from an unbroken run's: derive them from state.global_step, or carry an object with "
            "state_dict and load_state_dict: trainer.vault.add('name', it)",
        )


def warn_of_lost(events: Events, rank: int, folder: str, names: Sequence[str]) -> None:
    """Say, at a start, which attributes had been changed when its checkpoint was saved, and begin anew."""
    if names and not rank:
        events.warn(
            EventKind.INEXACT,
            f"{folder} doesn't hold {_some(names)}, which had changed by then and begin as the script makes them: "
            "where the training hangs on them, the numbers differ from an unbroken run's",
        )


def warn_of_order(events: Events, rank: int, folder: str, names: Sequence[str]) -> None:
    """Say, at a start within a pass, that a sampler reads what training has changed since the pass began."""
    if names and not rank:
        events.warn(
            EventKind.INEXACT,
            f"{folder}: a sampler of the script's own reads {_some(names)}, which training changes. It has that as at "
            "the save, not as when this pass through the data began, so the rest of the pass may come in another order "
            "than in an unbroken run: save at the ends of epochs to have the same",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
