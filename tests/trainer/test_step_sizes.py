"""Where a checkpoint is in the steps of a start that has other sizes: by numbers alone."""

from __future__ import annotations

from itertools import product

import pytest

from vaultlayer_hf.trainer.asked_epochs import TrainedEpochs
from vaultlayer_hf.trainer.step_sizes import StepSizes


def sizes(rows: int, batch: int, ranks: int = 1, accumulation: int = 1, *, drops: bool = False) -> StepSizes:
    """The sizes of a start on ``rows`` rows, by what its record says."""
    likeness = {
        "samples": rows,
        "batch size": batch,
        "world size": ranks,
        "accumulation": accumulation,
        "last batches": "left out" if drops else "kept",
    }
    found = StepSizes.of(likeness)
    assert found is not None
    return found


def at(then: StepSizes, done: int, passes: int = 0) -> TrainedEpochs:
    """A checkpoint behind so many batches of a pass."""
    return TrainedEpochs(1, passes + done / then.batches, then)


def test_places_where_the_last_batch_is_short() -> None:
    """A share of the batches is no share of the samples: 14 of 17 rows are one batch of 8, and 600 of 1025 none."""
    assert at(sizes(17, 2), 7).place(sizes(17, 8)) == (0, 1)
    assert at(sizes(1025, 1), 600).place(sizes(1025, 1024)) == (0, 0)
    assert at(sizes(1025, 1), 1024, 2).place(sizes(1025, 1024)) == (2, 1)
    assert at(sizes(17, 2, ranks=2), 3).place(sizes(17, 4)) == (0, 3)
    assert at(sizes(17, 2, ranks=2), 3).place(sizes(17, 4, ranks=2)) == (0, 1)


@pytest.mark.parametrize("drops", [False, True], ids=["kept", "left out"])
def test_no_row_is_left_out_and_less_than_a_step_comes_once_more(drops: bool) -> None:
    """For all small numbers of rows, sizes and ranks, at each batch of a pass."""
    made = list(product((1, 2, 3, 5, 8), (1, 2), (1, 3)))
    for rows, then, now in product((16, 17, 31, 33), made, made):
        (before, ranks, _), (batch, others, accumulation) = then, now
        if drops and rows < max(before * ranks, batch * others):
            continue
        was, is_now = (
            sizes(rows, before, ranks, drops=drops),
            sizes(rows, batch, others, accumulation, drops=drops),
        )
        for done in range(was.batches):
            place = at(was, done, 3).place(is_now)
            again = done * was.batch - place.steps * is_now.samples
            assert place.number == 3
            assert 0 <= again < is_now.samples


def test_passes_that_dont_follow_from_the_rows() -> None:
    """Ranks that share their batches have as many as before; of other data a share is done, less what isn't known."""
    assert at(StepSizes(4, 1, 8), 3).place(StepSizes(2, 1, 8)) == (0, 3)
    assert at(StepSizes(2, 1, 8), 4).place(StepSizes(4, 1, 40)) == (0, 19)
    # Of a checkpoint whose sampler gave 7 of its 17 rows nobody has noted how many batches these were.
    assert TrainedEpochs(4, 1.25, StepSizes(2, 1, 9)).place(StepSizes(1, 1, 7)) == (1, 1)


def test_a_pass_of_many_batches() -> None:
    """What an epoch is rounded to is no batch more, however many there are."""
    then = StepSizes(2, 1, 40_000_000)
    for done in (0, 1, 19_999_999, 39_999_999):
        assert at(then, done, 12).place(StepSizes(1, 1, 80_000_000)) == (12, 2 * done)


def test_sizes_that_arent_known() -> None:
    """A batch sampler of one's own has no size, and an older record no word of it."""
    assert StepSizes.of({}) is None
    assert StepSizes.of({"batch size": None, "world size": 1, "accumulation": 1}, 5) is None
    assert StepSizes.of({"batch size": 2, "world size": 1, "accumulation": 1, "samples": None}) is None
    assert StepSizes.recorded(None) is None
    kept = StepSizes(4, 2, 9)
    assert StepSizes.recorded(vars(kept)) == kept
