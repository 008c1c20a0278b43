"""What is kept of a training's place in its data. Plain values, tensors and text: a seam writes them into a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vaultlayer_hf.state.data.samplers import SamplerStates
from vaultlayer_hf.state.random_state import same_state


def state_lost(what: str, error: Exception) -> str:
    """Say in one line why there is no position, where a data set's own state ``what``: it may raise anything."""
    return f"the data's own state {what} ({type(error).__name__}: {error})".splitlines()[0]


@dataclass
class Moment:
    """What the next item follows from, beside the order: this process's random state, and what its data set holds.

    Attributes:
        random: None where it isn't to be put back.
        inner: generators and counters inside data set and collator.
        source: the data set's own state, where that is its position.
    """

    random: dict[str, Any] | None = None
    inner: dict[str, Any] = field(default_factory=dict)
    source: Any = None


@dataclass
class Position:
    """Where a rank is in its data, between two steps.

    Attributes:
        passes: number of the pass, from 0.
        batches: how many batches of it were trained on.
        drawn: how many the DataLoader itself has given for them: another number where one rank loads for all.
        over: whether the loop has ended this pass.
        emptied: whether its last batch was given out.
        begin: when the pass began.
        samplers: then.
        birth: when the worker processes were started; the same as ``begin`` unless they persist.
        ahead: ahead of each batch that was fetched by this process and not yet trained on.
        now: when it was saved.
        between: the samplers then.
        workers: state of each worker process that isn't its seed's, by number: behind ``drawn``, or where they
            are to fetch again (``again``), when the pass began.
        turn: number of the worker that fetches next.
        again: whether the pass can only be fetched again up to here.
        loader: state of a loader that keeps its position itself.
        ended: numbers of the worker processes that have come to the end of a data set without indices that tells its
            state: it may have begun the next pass there. Without workers: 0 for this process.
        first: the rows with which a last batch is completed, see completing.py; None where the loader keeps none.
        order: a sum over the indices given up to here, where it is known.
    """

    passes: int = 0
    batches: int = 0
    drawn: int = 0
    over: bool = False
    emptied: bool = False
    begin: Moment = field(default_factory=Moment)
    samplers: SamplerStates = field(default_factory=dict)
    birth: Moment = field(default_factory=Moment)
    ahead: list[Moment] = field(default_factory=list)
    now: Moment = field(default_factory=Moment)
    between: SamplerStates = field(default_factory=dict)
    workers: dict[int, dict[str, Any]] = field(default_factory=dict)
    turn: int = 0
    again: bool = False
    loader: Any = None
    ended: list[int] = field(default_factory=list)
    order: str | None = None
    first: Any = None

    @property
    def fetched_again_whole(self) -> bool:
        """Whether a resume fetches all batches of the run once more: those of its first pass."""
        return self.again and self.passes == 0 and not (self.over or self.emptied)


def content_of(position: Position) -> dict[str, Any]:
    """Return a position as ``position_from`` takes it; older releases read it where they know all that is in it.

    It shares what the position holds, and what of its moments is equal: a random state of 625 numbers isn't copied, and
    is written once, since training waits for this.
    """
    moments = {name: dict(vars(getattr(position, name))) for name in ("begin", "birth", "now")}
    ahead = [dict(vars(moment)) for moment in position.ahead]
    known: dict[str, list[Any]] = {}
    for moment in (*moments.values(), *ahead):
        if moment["random"] is not None:
            shared = {name: _known(known.setdefault(name, []), one) for name, one in moment["random"].items()}
            moment["random"] = shared
    content = {**vars(position), **moments, "ahead": ahead}
    if position.first is None:
        del content["first"]
    return content


def _known(known: list[Any], state: Any) -> Any:
    """Return the state of a generator that is equal to this one and known already; else it is from now on."""
    for one in known:
        if one is state or same_state(one, state):
            return one
    known.append(state)
    return state


def position_from(content: dict[str, Any]) -> Position:
    """Return a position from its content. Raises KeyError, TypeError."""
    moments = {name: Moment(**content[name]) for name in ("begin", "birth", "now")}
    ahead = [Moment(**moment) for moment in content["ahead"]]
    return Position(**{**content, **moments, "ahead": ahead})
