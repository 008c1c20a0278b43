"""How two runs differ, as far as their numbers follow from it."""

from __future__ import annotations

import pytest

from vaultlayer_hf.state.data.likeness import between_passes, data_differences


@pytest.mark.parametrize(
    ("then", "now", "draw", "said"),
    [(0, 2, False, True), (2, 0, False, True), (1, 2, False, False), (1, 2, True, True), (2, 2, True, False)],
)
def test_another_number_of_workers(then: int, now: int, draw: bool, said: bool) -> None:
    """Where workers don't draw their number is nobody's concern; of what this process drew itself nothing is known."""
    words, holds = data_differences({"worker processes": then}, {"worker processes": now}, workers_draw=draw)
    assert (words == [f"worker processes: {then} then, {now} now"]) is said
    assert holds


@pytest.mark.parametrize(
    ("size", "accumulation", "said"),
    [(16, 1, "aren't trained on"), (4, 1, "come once more"), (4, 2, ""), (8, 2, None)],
)
def test_what_another_batch_size_does_to_an_epoch_is_said(
    size: int, accumulation: int, said: str | None
) -> None:
    """An epoch goes on behind as many batches as then: with others some samples are left out, or come again."""
    then = {"batch size": 8, "accumulation": 1}
    words, holds = data_differences(
        then, {"batch size": size, "accumulation": accumulation}, workers_draw=False
    )
    about = [text for text in words if text.startswith("batch size")]
    assert len(about) == (said is not None)
    if said is not None:
        assert not holds
        assert about[0].startswith(f"batch size: 8 then, {size} now")
        assert ("an epoch under way" in about[0]) == bool(said)
        assert said in about[0]


def test_what_differs_between_two_passes() -> None:
    """What a script may exchange between passes is told from what makes numbers others; nothing where none is known."""
    then = {"world size": 2, "batch size": 8, "accumulation": 1, "worker processes": 1, "torch": "2.1"}
    now = {**then, "world size": 1, "batch size": 16, "worker processes": 2}
    doubts, notices = between_passes(then, now, workers_draw=False)
    assert doubts == ["world size: 2 then, 1 now"]
    assert notices == ["batch size: 8 then, 16 now: this start's holds from here on"]
    assert between_passes({}, now, workers_draw=True) == ([], [])
