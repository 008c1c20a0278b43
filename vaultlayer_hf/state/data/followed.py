"""DataLoaders that are followed: which can be, by whom each is, and the class that they have meanwhile."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

Opener = Callable[[], Iterator[Any]]

_classes: dict[type, type] = {}


class Follows(Protocol):
    """Who follows a loader."""

    def open(self, plain: Opener) -> Iterator[Any]:
        """Open a pass; ``plain`` does it as torch does."""

    def hand_over(self) -> None:
        """Stop following, because another follower takes the loader over."""


def base_of(loader: Any) -> Any:
    """Return the torch DataLoader inside a loader, which may be the loader itself."""
    return getattr(loader, "base_dataloader", loader)


def workers_persist(base: Any) -> bool:
    """Return whether a DataLoader's worker processes outlive its passes."""
    return bool(base.num_workers and base.persistent_workers)


def workers_run(base: Any) -> bool:
    """Return whether worker processes that outlive the passes have been started."""
    return workers_persist(base) and base._iterator is not None


def follower_of(loader: Any) -> Any:
    """Return who follows a loader, or None."""
    return getattr(base_of(loader), "__dict__", {}).get("_vaultlayer")


def why_not(loader: Any) -> str:
    """Return why a loader can't be followed; empty where it can."""
    base = base_of(loader)
    if not isinstance(base, torch.utils.data.DataLoader):
        return f"a {type(base).__name__} is no DataLoader of torch"
    if base.num_workers and not getattr(base, "in_order", True):
        return "with in_order=False batches come in the order in which workers happen to finish"
    if workers_persist(base) and _is_lazy(type(base)):
        return f"{type(base).__name__}.__iter__ is a generator, and its worker processes persist"
    return why_open(base)


def why_open(loader: Any) -> str:
    """Return why no pass of a DataLoader begins anew: one of a class of its own may hold an open iterator."""
    kind = torch.utils.data.dataloader._BaseDataLoaderIter
    held = [name for name, one in getattr(loader, "__dict__", {}).items() if isinstance(one, kind)]
    if not isinstance(loader, torch.utils.data.DataLoader) or set(held) <= {"_iterator"}:
        return ""
    return f"{type(loader).__name__} goes on with an iterator that was opened when it was made, whose order is its own"


def _is_lazy(cls: type) -> bool:
    """Tell whether a DataLoader's class wraps torch's iterator in a generator, which makes it at the first batch.

    What is put into the loader for as long as an iterator is made has to be there then, and not around ``__iter__``.
    """
    return inspect.isgeneratorfunction(getattr(cls, "__iter__", None))


def begin_following(base: Any, follower: Follows) -> None:
    """Have a follower follow a DataLoader, in place of the one that did so before."""
    former: Follows | None = follower_of(base)
    if former is not None:
        former.hand_over()
    keep_queues(getattr(base, "_iterator", None))
    base._vaultlayer = follower
    base.__class__ = _followed(type(base))


def end_following(base: Any) -> None:
    """Stop following a DataLoader: it gets its own class back."""
    if base.__dict__.pop("_vaultlayer", None) is not None:
        base.__class__ = type(base).__bases__[0]


def keep_queues(batches: Any) -> None:
    """Have worker processes end at once where the iterator that has started them is found as garbage (None: none).

    A loader and who follows it know each other, so such an iterator is found by the collector, which closes its queues
    before it asks the iterator to end: the workers would never be told, and training would wait 5 s for each. Queues
    that something else holds aren't garbage, and stay open until the iterator has ended.
    """
    queues = getattr(batches, "_index_queues", None)
    if queues:
        weakref.finalize(batches, list, queues).atexit = False


def _followed(cls: Any) -> Any:
    """Return a class that a DataLoader of this class has while it is followed."""

    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807 - a method, of the class below
        follower: Follows = self.__dict__["_vaultlayer"]
        return follower.open(lambda: cls.__iter__(self))

    def _get_iterator(self: Any) -> Iterator[Any]:  # torch's own; without a public name
        follower: Follows = self.__dict__["_vaultlayer"]
        return follower.open(lambda: cls._get_iterator(self))

    if cls not in _classes:
        opens: dict[str, Any] = {"_get_iterator": _get_iterator} if _is_lazy(cls) else {"__iter__": __iter__}
        _classes[cls] = type(cls.__name__, (cls,), {"__module__": cls.__module__, **opens})
    return _classes[cls]
