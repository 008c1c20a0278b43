"""Ways to a place in a loader: a DataLoader is followed; a pass of any other one is opened again, as well as can be.

A loader that tells its own position (``state_dict``) is put there. From one that doesn't, the batches that are done are
fetched again, in the order that the random state of then makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from vaultlayer_hf.state.data.feed import Emptied
from vaultlayer_hf.state.data.follower import Follower
from vaultlayer_hf.state.data.likeness import Likeness, between_passes, data_differences, take_likeness
from vaultlayer_hf.state.data.position import Moment, Position, content_of, position_from, state_lost
from vaultlayer_hf.state.data.samplers import (
    SamplerStates,
    put_sampler_weights,
    put_samplers,
    raise_counters,
    take_samplers,
    without_seeded_anew,
)
from vaultlayer_hf.state.random_state import put_random_state, same_random_state, take_random_state

_NOTHING = object()


@dataclass
class LoaderPosition:
    """Where a loop is in one loader.

    Attributes:
        random: this process's random state when the pass began, before the loader was asked for anything.
        samplers: of the loader, then.
        between: of the loader, now.
        loader: state of a loader that isn't followed and keeps its position itself; else None.
        position: of a loader that is followed, where it could be had.
        print: what a loader is like that is followed.
        why: why there is no position where there should be one.
    """

    random: dict[str, Any]
    samplers: SamplerStates
    between: SamplerStates
    loader: Any = None
    position: Position | None = None
    print: Likeness = field(default_factory=dict)
    why: str = ""

    def state_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        position = content_of(self.position) if self.position is not None else None
        return asdict(replace(self, position=None)) | {"position": position}


def loader_position_from(state: dict[str, Any]) -> LoaderPosition:
    """Return what ``state_dict`` was called on."""
    position = state["position"]
    return LoaderPosition(**{**state, "position": position_from(position) if position is not None else None})


class Way(Protocol):
    """How to be at a place in one loader.

    Attributes:
        likeness: what the loader is like; empty where that isn't known.
    """

    loader: Any
    likeness: Likeness

    def begin(self, before: LoaderPosition | None) -> Iterator[Any]:
        """Open a pass, behind a place of a checkpoint where there is one."""

    def go_on(self, at: LoaderPosition, batches: int, random: dict[str, Any]) -> Iterator[Any]:
        """Open the pass that was left behind so many batches, and be in that random state there."""

    def given(self) -> None:
        """Note that a batch is handed to the loop."""

    def end(self) -> None:
        """Note that the pass is over, or was left."""

    def place(self) -> LoaderPosition:
        """Return what the next start needs."""

    def remarks(self) -> tuple[list[str], list[str]]:
        """Return, once, why numbers may differ behind a pass that went on; and what else there is to say of it."""


class Followed:
    """A DataLoader, which is followed.

    Args:
        follower: of this loader.
        world_size: number of ranks.
    """

    def __init__(self, follower: Follower, world_size: int) -> None:
        self.loader = follower.outer
        self.follower = follower
        self.likeness = take_likeness(self.loader, world_size, 1)
        self._begin = LoaderPosition({}, {}, {})
        self._remarks: list[str] = []
        self._notices: list[str] = []
        self._emptied = False

    def begin(self, before: LoaderPosition | None) -> Iterator[Any]:
        """Open a pass, behind a place of a checkpoint where there is one."""
        self._begin = LoaderPosition(take_random_state(), {}, {})
        self.follower.guard.run(self._expect, before)
        if before is not None:
            draw = before.position is not None and bool(before.position.workers)
            self._remarks, self._notices = between_passes(before.print, self.likeness, workers_draw=draw)
        return iter(self.loader)

    def _expect(self, before: LoaderPosition | None) -> None:
        follower = self.follower
        if before is not None and before.position is not None:
            # The loop's own code between the two passes may have drawn already: it has its random state.
            now = replace(before.position.now, random=None)
            between = without_seeded_anew(self.loader, before.position.between)
            follower.resume(replace(before.position, over=True, now=now, between=between))
        elif before is not None:
            put_samplers(self.loader, without_seeded_anew(self.loader, before.between))
        self._begin.samplers = take_samplers(self.loader)
        follower.begin_epoch(set_since=True)

    def go_on(self, at: LoaderPosition, batches: int, random: dict[str, Any]) -> Iterator[Any]:
        """Open the pass that was left behind so many batches, and be in that random state there."""
        guard = self.follower.guard
        opened = guard.run(self._expect_again, at, batches, random)
        if opened is None:
            return Other(self.loader, guard.why).go_on(at, batches, random)
        self._emptied = isinstance(opened, Emptied)
        passed = iter(opened)
        if guard.why:  # the loader has been opened as torch does it
            put_random_state(random)
        return passed if self.follower.opens or self._emptied else _then(passed, random)

    def _expect_again(self, at: LoaderPosition, batches: int, random: dict[str, Any]) -> Any:
        follower, position = self.follower, at.position
        words, holds = ([at.why], False) if position is None else self._compared(at, position)
        self._remarks = words + ([follower.doubt] if follower.doubt else [])
        raise_counters(self.loader, at.samplers)
        self._begin = at
        if position is not None and holds and batches == position.batches:
            follower.resume(replace(position, now=replace(position.now, random=random)))
        else:
            begin = Position(begin=Moment(at.random), samplers=at.samplers)
            follower.resume_near(position or begin, batches)
        follower.begin_epoch()
        return follower.skip(batches)

    def _compared(self, at: LoaderPosition, position: Position) -> tuple[list[str], bool]:
        """Return what is different now, and whether the position holds."""
        words, holds = data_differences(at.print, self.likeness, workers_draw=bool(position.workers))
        return words, holds and "world size" not in {word.partition(":")[0] for word in words}

    def given(self) -> None:
        """Note that a batch is handed to the loop."""
        self.follower.guard.run(self.follower.batch_done)

    def end(self) -> None:
        """Note that the pass is over, or was left."""
        self.follower.guard.run(self.follower.end_epoch)
        if self._emptied and hasattr(self.loader, "iteration"):
            self.loader.iteration += 1  # accelerate doesn't count a pass of which nothing was left
        self._emptied = False

    def place(self) -> LoaderPosition:
        """Return what the next start needs."""
        guard = self.follower.guard
        between, position, why = guard.run(take_samplers, self.loader), None, guard.why
        if not guard.why:
            try:
                position = self.follower.position()
            except Exception as error:
                why = state_lost("couldn't be had", error)
        kept = replace(self._begin, between=between or {}, position=position)
        return replace(kept, print=self.likeness, why=why)

    def remarks(self) -> tuple[list[str], list[str]]:
        """Return, once, why numbers may differ behind a pass that went on; and what else there is to say of it."""
        doubts, self._remarks = self._remarks + self.follower.doubts, []
        notices, self._notices = self._notices + self.follower.remarks, []
        self.follower.remarks.clear()
        self.follower.doubts.clear()
        return doubts, notices


_DRAWS = (
    "what gives out the batches draws random numbers on its way, and in an unbroken run those of the training come in "
    "between: give steps() the DataLoader itself, which is followed, with epochs= or total= for how long to go on"
)


def place_between(
    loader: Any, bars: int, follower: Follower | None, world_size: int
) -> LoaderPosition | None:
    """Return what the next pass of a loader begins with that isn't gone through now; None: nothing of its own.

    Args:
        loader: without the bars that were around it.
        bars: how many these were.
        follower: of this loader; None where it isn't followed.
        world_size: number of ranks.
    """
    if follower is not None and not bars:
        return Followed(follower, world_size).place()
    inside = ".".join(["iterable"] * bars)
    states = {f"{inside}.{path}".strip("."): state for path, state in _samplers_of(loader).items()}
    return LoaderPosition({}, {}, states) if states else None


class Other:
    """A loader that can't be followed.

    Args:
        loader: with or without ``state_dict`` and ``load_state_dict``.
        why: why it can't be, where its batches may be others for that; else empty.
        ended: why it is followed no more, which the next start is to say; else empty.
    """

    def __init__(self, loader: Any, why: str, ended: str = "") -> None:
        self.loader = loader
        self.likeness: Likeness = {}
        self._why, self._ended = why, ended
        self._remarks: list[str] = []
        self._begin = LoaderPosition({}, {}, {})

    @property
    def _tells(self) -> bool:
        return hasattr(self.loader, "state_dict") and hasattr(self.loader, "load_state_dict")

    def begin(self, before: LoaderPosition | None) -> Iterator[Any]:
        """Open a pass, behind a place of a checkpoint where there is one."""
        if before is not None:
            put_samplers(self.loader, without_seeded_anew(self.loader, before.between))
        self._begin = LoaderPosition(take_random_state(), _samplers_of(self.loader), {})
        return iter(self.loader)

    def go_on(self, at: LoaderPosition, batches: int, random: dict[str, Any]) -> Iterator[Any]:
        """Open the pass that was left behind so many batches, and be in that random state there."""
        self._begin = at
        self._remarks = [self._why] if self._why else []
        tells = at.loader is not None and self._tells
        if tells:
            put_samplers(self.loader, at.between)
            put_sampler_weights(self.loader, at.samplers)
            self.loader.load_state_dict(at.loader)
            opened: Iterator[Any] = iter(self.loader)
        else:
            put_random_state(at.random)
            put_samplers(self.loader, at.samplers, began=True)
            opened = iter(self.loader)
            first: dict[str, Any] = {}
            for number in range(batches):
                next(opened, None)
                first = first if number else take_random_state()
            if batches and not same_random_state(first, take_random_state()):
                self._remarks.append(_DRAWS)
        put_sampler_weights(self.loader, at.between)
        put_random_state(random)
        return opened

    def given(self) -> None:
        """Nothing is to be noted."""

    def end(self) -> None:
        """Nothing is to be noted."""

    def place(self) -> LoaderPosition:
        """Return what the next start needs."""
        state = self.loader.state_dict() if self._tells else None
        return replace(self._begin, between=_samplers_of(self.loader), loader=state, why=self._ended)

    def remarks(self) -> tuple[list[str], list[str]]:
        """Return, once, why numbers may differ behind a pass that went on; and what else there is to say of it."""
        remarks, self._remarks = self._remarks, []
        return remarks, []


def _samplers_of(loader: Any) -> SamplerStates:
    """Return what ``take_samplers`` does; nothing where the user's samplers can't be looked into."""
    try:
        return take_samplers(loader)
    except Exception:
        return {}


def _then(batches: Iterator[Any], random: dict[str, Any]) -> Iterator[Any]:
    """Another rank fetches for this one: its random state belongs behind the first batch."""
    first = next(batches, _NOTHING)
    put_random_state(random)
    if first is not _NOTHING:
        yield first
        yield from batches
