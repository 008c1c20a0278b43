"""The places of a run's loaders: which of those of a checkpoint belongs to which loader of now.

A resumed script makes its loaders anew, so what tells them apart is when they are asked for. ``steps()`` is asked for
every pass, those that are behind the run, too: a loader's number is that of its first time. ``epochs()`` leaves epochs
out: there it is the loader's turn within an epoch, and one that an epoch makes anew has the turn of the one before.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch.utils.data import DataLoader

from vaultlayer_hf.loops.shared_data import SharedData
from vaultlayer_hf.loops.ways import LoaderPosition
from vaultlayer_hf.state.data.likeness import Likeness, same_data

NOT_NUMBERED = -1
"""Of a place in a checkpoint of an earlier version: it is the newest loader's, whichever that was."""
_PROVEN = 2
"""Epochs that have asked for the same loader, so that it isn't made anew for each."""
_BARS = 8
"""Objects around a DataLoader that are looked into."""


class Known:
    """A loader that this process was asked for.

    Args:
        loader: held weakly, since epochs may make theirs anew, each with much in it.
        kept: the number of its place in the checkpoint that the run goes on from.

    Attributes:
        bars: how many bars, such as tqdm's, are around its DataLoader.
        opened: whether a pass of it was opened.
        epochs: how many epochs have asked for it.
    """

    def __init__(self, loader: Any, kept: int) -> None:
        inner, self.bars = _within_bars(loader)
        self.kept, self.opened, self.epochs = kept, False, 0
        try:
            self._ref: Callable[[], Any] = weakref.ref(inner)
        except TypeError:  # a list, say, which has no state
            self._ref = lambda: None

    @property
    def stays(self) -> bool:
        """Whether later epochs may ask for it, too: it isn't made anew for each."""
        return self.epochs >= _PROVEN and self.loader is not None

    @property
    def loader(self) -> Any:
        """The loader, without bars around it; None where it is no more."""
        return self._ref()

    def is_of(self, loader: Any) -> bool:
        """Tell whether this is the loader, with or without a bar around it."""
        return self._ref() is _within_bars(loader)[0]


class LoaderPlaces:
    """Numbers of loaders, which a resumed run finds again, and the places of a checkpoint by these numbers.

    Args:
        kept: places of the checkpoint.
        newest: the number of the loader that its run was in, or had been in last.

    Attributes:
        kept: places that no pass has gone on behind yet.
        newest: the same.
    """

    def __init__(self, kept: Mapping[int, LoaderPosition] | None = None, newest: int = NOT_NUMBERED) -> None:
        self.kept, self.newest = dict(kept or {}), newest
        self._known: list[Known] = []
        self._aside: list[Known] = []  # whose turn another one has taken
        self._asked: list[Known] = []
        self._by_run = False
        self._shared = SharedData()

    def begin_epoch(self) -> None:
        """Begin to count the turns of an epoch."""
        self._asked = []

    def of_epoch(self, loader: Any) -> Known:
        """Return what is known of a loader that an epoch asks for."""
        asked = next((one for one in self._asked if one.is_of(loader)), None)
        if asked is not None:
            return asked
        turn = len(self._asked)
        known = next((one for one in self._known if one.is_of(loader)), None)
        if known is not None:
            self._known.remove(known)
        else:
            known = next((one for one in self._aside if one.is_of(loader)), None) or Known(loader, turn)
            self._aside = [one for one in self._aside if one is not known and one.loader is not None]
            if turn < len(self._known) and not self._known[turn].stays:
                self._aside.append(self._known.pop(turn))
        self._known.insert(turn, known)
        self._asked.append(known)
        known.epochs += 1
        return known

    def of_run(self, loader: Any) -> Known:
        """Return what is known of a loader, where all passes of the run are asked for."""
        self._by_run = True
        known = next((one for one in self._known if one.is_of(loader)), None)
        if known is None:
            known = Known(loader, len(self._known))
            self._known.append(known)
        return known

    def number_of(self, known: Known) -> int:
        """Return a loader's number, as a resumed run finds it."""
        return self._known.index(known) if known in self._known else NOT_NUMBERED

    def go_on(self, known: Known, loader: Any, place: LoaderPosition) -> None:
        """Note that the pass of a loader goes on that was under way."""
        known.opened = True
        self._note_shared(loader, place)

    def begin(self, known: Known, loader: Any, likeness: Likeness) -> LoaderPosition | None:
        """Note that a pass of a loader begins; return the place behind which it does: see ``_claim``."""
        place = self._claim(known, likeness)
        if place is not None:
            with suppress(Exception):  # the user's samplers may raise anything: as if nothing were shared
                place = self._shared.rest_of(loader, place)
        self._note_shared(loader, place)
        return place

    def _note_shared(self, loader: Any, place: LoaderPosition | None) -> None:
        if not self.kept:
            self._shared = SharedData()
            return
        with suppress(Exception):  # the user's samplers
            self._shared.note(loader, place)

    def _claim(self, known: Known, likeness: Likeness) -> LoaderPosition | None:
        """Return, once, the place of a loader whose first pass in this process begins; None where it has none.

        ``likeness``: what the loader is like. An epoch may ask for another one than the epoch before did, whose place
        isn't its own: one of other data gets none, or the one that another turn had then.
        """
        opened, known.opened = known.opened, True
        if opened:
            return None
        numbers = [known.kept, NOT_NUMBERED]
        if self._by_run and known.kept not in self.kept and self._is_gone(self.newest):
            numbers.append(self.newest)  # each pass makes its loader anew
        elif not self._by_run and likeness:
            numbers += [number for number, place in sorted(self.kept.items()) if place.print]
        for number in numbers:
            if number in self.kept and (self._by_run or same_data(self.kept[number].print, likeness)):
                return self.kept.pop(number)
        return None

    def _is_gone(self, number: int) -> bool:
        return 0 <= number < len(self._known) and self._known[number].loader is None

    def others(
        self,
        current: int,
        newest: LoaderPosition | None,
        place_of: Callable[[Any, int], LoaderPosition | None],
    ) -> dict[int, LoaderPosition]:
        """Return the places of all loaders but the one with number ``current``, whose place is ``newest``.

        ``place_of`` returns that of a loader, given how many bars are around it.
        """
        found: dict[int, LoaderPosition] = {}
        kept = {number: place for number, place in self.kept.items() if place is not newest}
        for number, one in enumerate(self._known):
            place = None
            if not one.opened:
                place = kept.pop(one.kept, None)
            elif number != current and (loader := one.loader) is not None:
                place = place_of(loader, one.bars)
            if place is not None and number != current:
                found[number] = place
        for number, place in kept.items():
            if number in found or number == current:
                number = 1 + max([*found, *kept, current])
            found[number] = place
        return found


def _within_bars(loader: Any) -> tuple[Any, int]:
    """Return the DataLoader that bars are around, and how many these are; any other loader is returned as it is."""
    inner, bars = loader, 0
    while bars < _BARS and inner is not None and not isinstance(inner, DataLoader):
        inner, bars = getattr(inner, "iterable", None), bars + 1
    return (inner, bars) if isinstance(inner, DataLoader) else (loader, 0)
