"""Ends the following of a loader at the first error inside it, so that none of ours ever ends a training.

What is looked into is the user's: a data set's attributes, its generators, its samplers. Any of these may raise
anything where it is asked for what the training itself never asks. So each way into the following goes through one
``Guard``. An error that the training would have met without us, in a batch or in the opening of a pass, goes through
it unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Guard:
    """Runs what follows a loader, until that raises.

    Args:
        ended: called once, with the reason, when the following ends.

    Attributes:
        why: why the loader isn't followed any more; empty while it is.

    Example::

        guard = Guard(lambda why: events.warn(EventKind.NOTICE, no_longer(why)))
        guard.run(follower.note, batch)  # raises nothing of the follower's own
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self.why = ""
        self._ended = [ended]
        self._of_user: BaseException | None = None

    def at_end(self, call: Callable[[], None]) -> None:
        """Have something called when the following ends, ahead of all that was asked for before."""
        self._ended.insert(0, lambda why: call())

    def run(self, call: Callable[Args, Result], *args: Args.args, **named: Args.kwargs) -> Result | None:
        """Call a part of the following. None where that has ended, or ends by this. Raises only the user's errors."""
        if self.why:
            return None
        try:
            return call(*args, **named)
        except Exception as error:
            self.end(error)
            return None

    def end(self, error: Exception) -> None:
        """End the following because of an error. Raises that error where it is the user's own."""
        if error is self._of_user:
            raise error
        if self.why:
            return
        self.why = reason_of(error)
        for call in self._ended:
            call(self.why)

    @contextmanager
    def users(self) -> Iterator[None]:
        """Run a part of the user's own inside a part of the following: what it raises goes through the guard."""
        try:
            yield
        except BaseException as error:
            self._of_user = error
            raise


def reason_of(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def no_longer(why: str) -> str:
    """Return the sentence for a following that has ended."""
    return f"the place in the data isn't followed any more: {why}: the next resume isn't exact"
