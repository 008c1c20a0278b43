"""A loader that keeps its own place (torchdata's) and that the script goes through itself.

It was given to ``add()``, or accelerate has loaded it.

Its state brings the place back. But whoever opens it behind a resume draws a number to do so, which an unbroken run has
drawn when the pass began: so the random state is as it was ahead of that opening. What worker processes draw isn't in
its state, and an iterator that was open ahead of the load stays where it was: both are said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from vaultlayer_hf.state.data.likeness import sampler_name
from vaultlayer_hf.state.random_state import put_random_state, take_random_state

_EXACT = "Checkpointer(accelerator=…) with steps() goes on exactly"
SKIPPED = (
    "skip_first_batches opens the loader anew, which draws random numbers that an unbroken run doesn't draw there, and "
    f"another order where nothing seeds it: {_EXACT}"
)
"""What is to be said of batches that accelerate leaves out."""
_DRAWS_NONE = ("SequentialSampler", "_InfiniteConstantSampler")
"""Samplers whose order isn't drawn; the second one stands for a data set that can only be gone through."""


def keeps_place(thing: Any) -> bool:
    """Tell whether an object is a DataLoader with a state of its own."""
    return isinstance(thing, DataLoader) and callable(getattr(thing, "load_state_dict", None))


def load_place(loader: Any, state: Any) -> list[str]:
    """Load such a loader's state; return in words what speaks against the numbers of an unbroken run.

    Raises what its ``load_state_dict`` raises.
    """
    # One that was made to tell its state has given nothing out.
    open_already = getattr(loader, "_iterator", None) is not None and not getattr(
        loader, "_initial_iter_for_state_dict", False
    )
    loader.load_state_dict(state)
    _open_quietly(loader)
    words = []
    if open_already:
        words.append(
            "it was opened before the load, and an iterator that is open then begins its data anew: open it after that"
        )
    if getattr(loader, "num_workers", 0):
        words.append(f"a {type(loader).__name__} doesn't keep what is drawn in and for its worker processes")
    return words


def loaded_by_accelerate(loader: Any) -> str:
    """Have the opening of a loader that accelerate has loaded change nothing else; return what is to be said of it.

    accelerate gives such a loader samplers of its own, which torchdata can only go through again.
    """
    _open_quietly(loader)
    if sampler_name(loader) in _DRAWS_NONE:
        return ""
    return (
        "use_stateful_dataloader keeps how far a pass was, and not in which order it draws its samples: "
        f"{_EXACT}"
    )


def in_doubt(doubts: Iterable[str]) -> str:
    """Return the sentence that says it of loaders by their names. Pure."""
    return f"the numbers may differ from an unbroken run's: {'; '.join(doubts)}"


def _open_quietly(loader: Any) -> None:
    """Have the next opening leave the random state as it was."""
    make = getattr(loader, "_get_iterator", None)
    if make is None:
        return

    def make_quietly() -> Iterator[Any]:
        vars(loader).pop("_get_iterator", None)
        before = take_random_state()
        try:
            made: Iterator[Any] = make()
            return made
        finally:
            put_random_state(before)

    loader._get_iterator = make_quietly
