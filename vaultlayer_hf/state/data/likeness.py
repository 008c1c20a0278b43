"""What a run is like, as far as its numbers follow from it; and how two runs differ. Pure but for ``take_likeness``."""

from __future__ import annotations

import platform
from typing import Any

from torch.utils.data import IterableDataset

from vaultlayer_hf.base.versions import versions
from vaultlayer_hf.state.data.followed import base_of
from vaultlayer_hf.state.data.sources import unwrapped

Likeness = dict[str, Any]
GENERATED = "batches a generation"
"""How many micro-batches a batch of TRL's loaders is cut into (GRPO, RLOO), which repeat it for each of them."""
_ORDER = (
    *("samples", "batch size", "data set", "sampler", "last batches", "loader", "data loading processes"),
    GENERATED,
)
"""The data's order follows from these: where they differ, the place of one run is none in that of the other."""
_DATA = ("samples", "data set", "sampler")
"""Two loaders that differ in these aren't one and the same, made anew by a later start."""
_OF_LOADER = (*_ORDER, "accumulation", "worker processes", "persistent workers")
"""A script may give each pass a loader of its own: in an unbroken run, too, these may differ from pass to pass."""
_WORKERS = ("worker processes", "persistent workers")
"""Each worker draws from a seed of its own: so these change numbers, but only where workers draw any."""


def take_likeness(loader: Any, world_size: int, accumulation: int) -> Likeness:
    """Return what a run on this loader is like, by name; only numbers, text and None."""
    base = base_of(loader)
    dataset = unwrapped(getattr(base, "dataset", None))
    try:
        samples = len(dataset)
    except Exception:  # of the script's own data set: it raises what it likes
        samples = None
    sampler: Any = getattr(base, "batch_sampler", None)
    while not getattr(sampler, "batch_size", None) and hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler  # within what leaves batches out
    found: Likeness = {
        "world size": world_size,
        "samples": samples,
        "batch size": getattr(sampler, "batch_size", None) or getattr(base, "batch_size", None),
        "data set": type(dataset).__name__,
        "sampler": sampler_name(base),
        "last batches": "left out" if getattr(base, "drop_last", False) else "kept",
        "loader": type(loader).__name__,
        "accumulation": accumulation,
        "worker processes": getattr(base, "num_workers", 0),
        "persistent workers": bool(getattr(base, "persistent_workers", False)),
        "processor": platform.machine(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }
    if isinstance(dataset, IterableDataset):  # which process reads what
        found["data loading processes"] = found["worker processes"]
    return found | {name: version for name, version in versions().items() if name != "vaultlayer-hf"}


def sampler_name(base: Any) -> str:
    """Return the class name of what a DataLoader's order is drawn by, within what makes batches of it."""
    batches = getattr(base, "batch_sampler", None)
    sampler: Any = batches if batches is not None else getattr(base, "sampler", None)
    while (
        getattr(sampler, "batch_sampler", None) is not None or getattr(sampler, "sampler", None) is not None
    ):
        sampler = getattr(sampler, "batch_sampler", None) or sampler.sampler
    return type(sampler).__name__


def data_differences(
    then: Likeness, now: Likeness, *, workers_draw: bool, by_samples: bool = False
) -> tuple[list[str], bool]:
    """Return in words what has changed so that numbers may differ, and whether the place in the data still holds.

    ``by_samples``: whether an epoch under way goes on behind as many samples as then, and not as many batches.
    """
    words, holds = [], True
    for name, value in then.items():
        if name not in now or now[name] == value:
            continue
        # Whether the data draw random numbers isn't known of those that this process has read itself.
        elsewhere = name == "worker processes" and not (value and now[name])
        if workers_draw or elsewhere or name not in _WORKERS:
            more = _left_of_epoch(then, now) if name == "batch size" and not by_samples else ""
            words.append(f"{name}: {value} then, {now[name]} now{more}")
            holds = holds and name not in _ORDER
    return words, holds


def between_passes(then: Likeness, now: Likeness, *, workers_draw: bool) -> tuple[list[str], list[str]]:
    """Return why numbers may differ where a pass begins behind one of then, and what else is different, in words.

    ``then``: empty where it isn't known.
    """
    doubts, notices = [], []
    for name in then:
        words, _ = data_differences({name: then[name]}, now, workers_draw=workers_draw, by_samples=True)
        if name in _OF_LOADER:
            notices += [f"{text}: this start's holds from here on" for text in words]
        else:
            doubts += words
    return doubts, notices


def _left_of_epoch(then: Likeness, now: Likeness) -> str:
    """Return what other batches do to an epoch under way, which goes on behind as many of them as then."""
    sizes = [
        one.get("batch size", 0) * one.get("accumulation", 1)
        for one in (then, now)
        if isinstance(one.get("batch size"), int)
    ]
    if len(sizes) < 2 or sizes[0] == sizes[1]:
        return ""
    fate = "aren't trained on" if sizes[1] > sizes[0] else "come once more"
    return f" (an epoch under way goes on behind as many batches as then, so some of its samples {fate})"


def same_data(then: Likeness, now: Likeness) -> bool:
    """Return whether a loader may be the one of then, as far as it is known of both what they are like."""
    return all(then[name] == now[name] for name in _DATA if name in then and name in now)


def steps_a_pass(loader: Any, accumulation: int) -> tuple[int, ...]:
    """Return how many steps the Trainer counts in a pass: its versions differ in whether a rest is one of them. Pure.

    None where the loader has no length.

    >>> steps_a_pass(range(10), 4), steps_a_pass(iter("ab"), 1)
    ((3, 2), ())
    """
    try:
        length = len(loader)
    except Exception:  # of the script's own data set: it raises what it likes
        return ()
    return tuple(steps for steps in (-(-length // accumulation), length // accumulation) if steps)
