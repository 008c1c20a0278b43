"""A Trainer's resume is the same run, also where the stock Trainer's is another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exact.material import MORE, NEW, TABLE, Scenario, scenario
from tests.exact.skip import measure
from tests.exact.table import MODULES, play_all, play_row, text_of
from tests.forks import ForkServer
from vaultlayer_hf.state.data.inner import Inner
from vaultlayer_hf.trainer.data_file import read_record

TELLING = (
    "group_by_length",
    "persistent workers",
    "random augmentation, 0 workers",
    "random augmentation, 2 workers",
    "iterable over several epochs",
    "end of an epoch",
    "losses logged every 4 steps",
    "iterable whose last batch is completed",
)
"""What is played on two ranks where time is short."""


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    """Processes that have imported what they need."""
    with ForkServer(*MODULES) as server:
        yield server


@pytest.mark.slow
def test_what_stock_resumes_otherwise_is_the_same_run(forks: ForkServer, tmp_path: Path) -> None:
    """Workers that draw: an undisturbed run is as stock's, stock's resume is another run, ours is the same."""
    row = play_row(forks, scenario("random augmentation, 2 workers"), tmp_path, 1)
    assert row.trouble == {}
    assert (row.stock, row.ours, row.unchanged, row.said) == (False, True, True, ())


def test_a_stream_whose_state_is_wrong_is_counted_from_its_start(forks: ForkServer, tmp_path: Path) -> None:
    """As in datasets 5.0.0, whose state stands still behind a resume: batches are read again, which is said."""
    name = "datasets' iterable whose state stands still behind a resume"
    row = play_row(forks, scenario(name), tmp_path, 1, kinds=(True,))
    assert row.trouble == {}
    assert row.ours
    assert all("doesn't go on where its state_dict says" in words for words in row.said)
    assert len(row.said) == 3


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("random augmentation, 2 workers", {"dataloader_num_workers": 1}, "worker processes: 2 then, 1 now"),
        ("in the middle of an epoch", {"per_device_train_batch_size": 1}, "batch size: 2 then, 1 now"),
        ("ignore_data_skip", {}, "ignore_data_skip=True begins the data anew"),
    ],
)
def test_another_run_is_said(
    forks: ForkServer, tmp_path: Path, name: str, changed: dict[str, Any], words: str
) -> None:
    """Where the run that goes on can't have the same numbers, it says so in one line, with the reason."""
    if not NEW and "batch size" in words:
        pytest.skip("transformers 4 goes on with the batch size of the checkpoint")
    row = play_row(forks, scenario(name), tmp_path, 1, kinds=(True,), **changed)
    assert row.trouble == {}
    assert not row.ours
    assert row.said
    assert all(words in said for said in row.said)


def test_a_checkpoint_without_the_place_still_resumes(forks: ForkServer, tmp_path: Path) -> None:
    """Checkpoints that stock or an older release wrote resume as stock resumes them; that they are short is said."""
    row = play_row(forks, scenario("in the middle of an epoch"), tmp_path, 1, kinds=(True,), bare=True)
    assert row.trouble == {}
    assert row.ours, "stock's own resume is the same run here"
    assert any("has no vaultlayer_data_0.pt" in words for words in row.said)


@pytest.mark.parametrize("kind", ["shuffled, 2 workers", "datasets' iterable, 0 workers"])
def test_going_past_samples_fetches_none_and_arrives_where_stock_does(tmp_path: Path, kind: str) -> None:
    """The first batch behind a skip is the one that accelerate's own skip gives."""
    measure(kind, 400, tmp_path)


def test_a_record_is_read_without_running_anything(tmp_path: Path) -> None:
    """What isn't a record is a reason, not an exception; no pickle is run."""
    assert "has no" in str(read_record(tmp_path, 0))
    (tmp_path / "vaultlayer_data_0.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert "can't be read" in str(read_record(tmp_path, 0))


class _Deep:
    def __init__(self) -> None:
        self.transforms = [_Leaf(), _Leaf()]
        self.passes = 0
        self.size = 4


class _Leaf:
    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)


def test_generators_and_counters_inside_a_data_set() -> None:
    """Generators a few attributes deep and counters that have moved come back; other numbers stay the script's."""
    first = _Deep()
    inner = Inner(dataset=first)
    first.passes = 3
    torch.rand(2, generator=first.transforms[1].generator)
    state = inner.take()
    expected = torch.rand(3, generator=first.transforms[1].generator)
    other = _Deep()
    other.size = 5
    Inner(dataset=other).put(state)
    assert torch.equal(torch.rand(3, generator=other.transforms[1].generator), expected)
    assert (other.passes, other.size) == (3, 5)


def _check(scenarios: tuple[Scenario, ...], folder: Path, world: int) -> None:
    rows = play_all(scenarios, folder, world)
    print(text_of(rows))
    for row in rows:
        assert row.unchanged or "whole" in str(row.trouble), f"{row.scenario.name}: {text_of(rows)}"
        if row.scenario.possible:
            assert row.ours, f"{row.scenario.name}: {text_of(rows)}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("table", [TABLE, MORE], ids=["table", "more"])
def test_all_scenarios(table: tuple[Scenario, ...], tmp_path: Path) -> None:
    """Every scenario that can be the same run is, on one rank; an undisturbed run is as stock's."""
    _check(table, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not NEW, reason="transformers 4 can't resume several ranks on CPUs by itself")
def test_telling_scenarios_on_two_ranks(tmp_path: Path) -> None:
    """The same with DDP on two ranks."""
    _check(tuple(one for one in TABLE + MORE if one.name in TELLING), tmp_path, 2)
