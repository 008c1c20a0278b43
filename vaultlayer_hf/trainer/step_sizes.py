"""What the steps of a start are made of, and where one start's place in a pass is in the steps of another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from vaultlayer_hf.state.data.likeness import Likeness


class PlaceInPass(NamedTuple):
    """Where a checkpoint is, in the steps of a start.

    Attributes:
        number: of the pass under way, from 0.
        steps: how many of the start's steps are done of it.
    """

    number: int
    steps: int


@dataclass(frozen=True)
class StepSizes:
    """What the steps of a start are made of.

    Attributes:
        batch: how many samples a batch of the loop has, over all ranks; the last one of a pass may have fewer.
        accumulation: how many of these batches are a step.
        batches: how many of them are a pass.
    """

    batch: int
    accumulation: int
    batches: int

    @classmethod
    def of(cls, likeness: Likeness, batches: int | None = None) -> StepSizes | None:
        """Return the sizes by what a run is like; None where they aren't known.

        ``batches``: of a pass; None: not known, so that they follow from the number of samples.

        >>> StepSizes.of({"batch size": 2, "world size": 2, "accumulation": 1, "samples": 17})
        StepSizes(batch=4, accumulation=1, batches=5)
        """
        size, ranks, accumulation = (
            _count(likeness.get(name)) for name in ("batch size", "world size", "accumulation")
        )
        batch = size * ranks
        if not (batch and accumulation):
            return None
        if batches is None:
            samples = _count(likeness.get("samples"))
            batches = samples // batch if likeness.get("last batches") == "left out" else -(-samples // batch)
        return cls(batch, accumulation, batches) if batches else None

    @classmethod
    def recorded(cls, kept: Any) -> StepSizes | None:
        """Return the sizes that ``vars`` of them were kept as; None where they weren't."""
        names = ("batch", "accumulation", "batches")
        found = [_count(kept.get(name)) for name in names] if isinstance(kept, dict) else [0]
        return cls(*found) if all(found) else None

    @property
    def samples(self) -> int:
        """How many samples a step has, over all ranks."""
        return self.batch * self.accumulation

    @property
    def steps(self) -> int:
        """How many steps a pass has, a rest of batches being one of them."""
        return -(-self.batches // self.accumulation)

    def of_same_rows(self, then: StepSizes) -> bool:
        """Tell whether passes of these sizes may be of as many rows as those of other ones.

        One of n batches has up to one batch's samples more, or fewer, than n full ones.
        """
        return abs(self.batches * self.batch - then.batches * then.batch) < max(self.batch, then.batch)

    def like(self, other: StepSizes) -> bool:
        """Tell whether a step of these sizes is one of the other sizes.

        It is where TRL repeats each of its batches twice as often as its micro-batches are half as large, too.

        >>> StepSizes(8, 1, 40).like(StepSizes(8, 2, 80)), StepSizes(8, 1, 40).like(StepSizes(8, 2, 40))
        (True, False)
        """
        repeated = (
            self.batch == other.batch
            and self.batches * other.accumulation == other.batches * self.accumulation
        )
        return repeated or self.samples == other.samples

    def behind(self, then: StepSizes, done: int) -> int:
        """Return how many of these batches lie within the first ``done`` of a pass of other ones.

        Counted in samples, since the last batch of a pass may be a short one: the same share of the batches is another
        one of the samples. Rounded down, so that no sample is left out.

        >>> StepSizes(8, 1, 3).behind(StepSizes(2, 1, 9), 7)  # 14 of 17 rows
        1
        """
        if self.of_same_rows(then):
            return done * then.batch // self.batch
        # Other data, or ranks that don't have batches of their own: as many batches are the same ones, and of another
        # number of them the last one's size isn't known.
        return done if self.batches == then.batches else done * (self.batches - 1) // then.batches


def _count(value: Any) -> int:
    """Return a number of things; 0 for what is none."""
    return value if isinstance(value, int) and value > 0 else 0
