"""What is said of the state of a script's own objects that no checkpoint holds, or that holds for another moment."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from vaultlayer_hf.base.events import EventKind, Events

_SHOWN = 3
"""Names that a message holds, at most."""


class OwnTrouble(Enum):
    """What is wrong with attributes of a script's own objects, and the sentence that says it.

    In it ``{names}`` are the attributes' paths, and ``{folder}`` the checkpoint's that the training goes on from.
    """

    MOVED = (
        "{names}: training changes these attributes of the script's own objects, and no checkpoint holds them: they "
        "are large, look like a secret, are a library's that doesn't tell its state, are a part of the training that "
        "is exchanged on the way, or go with what can't be kept, such as an open file or an iterator. After a resume "
        "they begin as the script makes them, and where the training hangs on them the numbers differ from an unbroken "
        "run's: derive them from state.global_step, or carry an object with state_dict and load_state_dict: "
        "trainer.vault.add('name', it)"
    )
    LOST = (
        "{folder} doesn't hold {names}, which had changed by then and begin as the script makes them: where the "
        "training hangs on them, the numbers differ from an unbroken run's"
    )
    UNFIT = (
        "{folder} holds {names}, and this start has nothing there yet that takes it: what a script makes on its way is "
        "made of what it has then, such as the newest weights in the place of the first ones. Where the training hangs "
        "on it, the numbers differ from an unbroken run's: make it ahead of train(), or carry it: "
        "trainer.vault.add('name', it)"
    )
    OTHER = (
        "{folder} was trained with other content of {names}, which each start makes and no checkpoint holds: nothing "
        "may seed it, or the script may make it of the newest checkpoint. Where the training hangs on it, the numbers "
        "differ from an unbroken run's: make it the same at each start, or carry it: trainer.vault.add('name', it)"
    )
    RANKS = (
        "{folder} was saved by another number of ranks, each of which held something else in {names}: all ranks begin "
        "with what rank 0 held. Where the training hangs on it, the numbers differ from an unbroken run's"
    )
    ORDER = (
        "{folder}: a sampler of the script's own reads {names}, which training changes. It has that as at the save, "
        "not as when this pass through the data began, so the rest of the pass may come in another order than in an "
        "unbroken run: save at the ends of epochs to have the same"
    )


def warn_of(
    trouble: OwnTrouble, events: Events, rank: int, names: Sequence[str], *, folder: str = ""
) -> None:
    """Say what is wrong with attributes, where there are any; on rank 0, the same once, and of saves the first alone.

    Args:
        trouble: what.
        events: where it is said.
        rank: of this process.
        names: paths of the attributes.
        folder: of the checkpoint that the training goes on from; empty: it is about the saves of this training.
    """
    if not names or rank:
        return
    more = len(names) - _SHOWN
    some = ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    said = trouble.value.format(names=some, folder=folder)
    events.warn_once(f"attributes {said if folder else ''}", EventKind.INEXACT, said)
