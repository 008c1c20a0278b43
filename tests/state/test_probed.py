"""A stream's own word on where it is is tried before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vaultlayer_hf.state.data.probed import goes_on, why_distrusted

datasets = pytest.importorskip("datasets")


class Counted:
    """Twenty numbers; it tells how many it has given."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.given, 20):
            self.given += 1
            yield number

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given = state["given"]


class StandsStill(Counted):
    """Like datasets 5.0.0: behind a resume its state stays that of the resume."""

    loaded: dict[str, int] | None = None

    def state_dict(self) -> dict[str, int]:
        return self.loaded or super().state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.loaded = dict(state)


class OneAhead(Counted):
    """Like a filter up to 5.0.0: it goes on a row too late."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given = state["given"] + 1


@pytest.mark.parametrize(("make", "right"), [(Counted, True), (StandsStill, False), (OneAhead, False)])
def test_a_state_that_is_wrong_is_found_out(make: Callable[[], Any], right: bool) -> None:
    """Also one that is wrong only behind a second resume."""
    assert goes_on(make) is right


def _stream() -> Any:
    return datasets.Dataset.from_dict({"x": list(range(9))}).to_iterable_dataset()


_WRONG = {"5.0.0": ("plain", "filtered", "batches", "wrapped"), "4.8.5": ("filtered",), "5.2.0": ()}
"""What was seen to go on elsewhere, by release."""


@pytest.mark.skipif(
    datasets.__version__ not in _WRONG, reason="nobody has looked at this release of datasets"
)
@pytest.mark.parametrize("kind", ["plain", "filtered", "batches", "wrapped"])
def test_the_installed_release(kind: str) -> None:
    """What is known of releases of datasets is what the trial finds; run it with 5.0.0, 4.8.5 and 5.2.0."""

    class Wrapper:
        def __init__(self) -> None:
            self.inside = _stream()

    made = {
        "plain": _stream(),
        "filtered": _stream().filter(lambda row: row["x"] > 2),
        "batches": _stream().map(lambda rows: rows, batched=True),
        "wrapped": Wrapper(),
    }
    wrong = kind in _WRONG[datasets.__version__]
    assert bool(why_distrusted(made[kind])) == wrong
    assert (f"datasets {datasets.__version__}" in why_distrusted(made[kind])) == wrong


def test_other_data_sets_are_not_tried() -> None:
    """A script's own class is taken at its word: nothing is known of it, and its data may be far away."""
    assert why_distrusted(StandsStill()) == ""
