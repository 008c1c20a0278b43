"""The batches of a pass as the loop gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vaultlayer_hf.state.data.fetches import Fetches
from vaultlayer_hf.state.data.position import Moment


class Feed:
    """The batches of a pass, each fetched in the state that belongs to it.

    Args:
        fetches: where they are noted.
        batches: torch's iterator.
        ahead: states of the batches that had been fetched ahead.
        now: state of the fetch behind those; None: as it is.
        emptied: called when there are no more.
    """

    def __init__(
        self,
        fetches: Fetches,
        batches: Iterator[Any],
        ahead: list[Moment],
        now: Moment | None,
        emptied: Callable[[], None],
    ) -> None:
        self._fetches, self._batches, self._emptied = fetches, batches, emptied
        self._moments = ahead + ([now] if now is not None else [])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._fetches.before(self._moments.pop(0) if self._moments else None)
        try:
            batch = next(self._batches)
        except StopIteration:
            self._emptied()
            raise
        finally:
            self._fetches.settle()
        return self._fetches.done(batch)


class Emptied:
    """A pass of which nothing is left: older accelerate would yield None. It has the loader's other sides.

    Args:
        loader: the one whose pass it is.
        opened: called when the pass is opened.
    """

    def __init__(self, loader: Any, opened: Callable[[], None]) -> None:
        self._loader, self._opened = loader, opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        self._opened()
        return iter(())
