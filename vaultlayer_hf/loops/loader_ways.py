"""Which way there is to a place in each of a loop's loaders, and who follows them."""

from __future__ import annotations

import weakref
from typing import Any

from torch.utils.data import DataLoader

from vaultlayer_hf.base.events import EventKind, Events
from vaultlayer_hf.loops.ways import Followed, LoaderPosition, Other, Way, place_between
from vaultlayer_hf.state.data.followed import follower_of, why_not, why_open
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.guard import Guard, no_longer
from vaultlayer_hf.state.data.placed import in_doubt
from vaultlayer_hf.state.data.samplers import parts


class LoaderWays:
    """Ways to places in loaders.

    Attributes:
        rank, world_size: of this process.

    Args:
        events: where to tell what happens.
    """

    def __init__(self, events: Events) -> None:
        self.rank, self.world_size = 0, 1
        self._events = events
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._ended: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # why, by loader

    def way_to(self, loader: Any, now: Way | None) -> Way:
        """Return the way to a loader's place; ``now``: the newest that was gone, which may be the same."""
        ended = self._ended.get(loader, "") if isinstance(loader, DataLoader) else ""
        why = ended or why_not(loader)
        follower = follower_of(loader)
        same = isinstance(now, Other) if why else getattr(now, "follower", None) is follower
        if now is not None and now.loader is loader and same:
            return now
        if not why and not self._follows(follower, loader):
            guard = Guard(lambda reason: self._stop(loader, reason))
            way = guard.run(self._followed, loader, guard)
            if way is not None:
                return way
            why = ended = guard.why
        if why:
            shown = getattr(loader, "iterable", None)  # of a bar
            return Other(loader, why if isinstance(loader, DataLoader) else why_open(shown), ended)
        return Followed(follower, self.world_size)

    def place_of(self, way: Way) -> LoaderPosition:
        """Return the place on a way; say where it can't be had."""
        place = way.place()
        if place.why:
            self._events.warn_once("data", EventKind.NOTICE, f"the place in the data isn't kept: {place.why}")
        return place

    def place_between(self, loader: Any, bars: int) -> LoaderPosition | None:
        """Return what the next pass of a loader begins with that isn't gone through now: see ``ways.place_between``."""
        follower = follower_of(loader)
        follows = self._follows(follower, loader) and not self._ended.get(loader)
        return place_between(loader, bars, follower if follows else None, self.world_size)

    def leave(self) -> None:
        """Leave all loaders as they were."""
        for follower in list(self._followers):
            follower.leave()

    def log_remarks(self, way: Way) -> None:
        """Log, behind the first batch of a pass that went on, what there is to say of it."""
        doubts, notices = way.remarks()
        if doubts:
            self._events.warn(EventKind.INEXACT, in_doubt(doubts))
        for notice in notices:
            self._events.info(EventKind.NOTICE, notice)

    def _follows(self, follower: Any, loader: Any) -> bool:
        return follower is not None and follower in self._followers and follower.outer is loader

    def _followed(self, loader: Any, guard: Guard) -> Followed:
        follower = Follower(loader, self.rank, self.world_size, guard, by_length=False)
        way = Followed(follower, self.world_size)
        self._followers.add(follower)
        return way

    def _stop(self, loader: Any, why: str) -> None:
        """Note that a loader isn't followed any more, and say so once."""
        self._ended[loader] = why
        self._events.warn_once("data", EventKind.NOTICE, no_longer(why))


def set_epoch_of(loader: Any, epoch: int) -> None:
    """Tell a plain loader's samplers which pass this is, as torch asks of scripts; accelerate's count themselves."""
    if hasattr(loader, "base_dataloader"):
        return
    for part in parts(loader).values():
        if part is not loader and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)


def length_of(loader: Any) -> int | None:
    """Return how many batches a loader says that it has; None where it doesn't."""
    try:
        return len(loader)
    except Exception:  # of the script's own data set: it raises what it likes
        return None
