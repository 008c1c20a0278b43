"""Another number of ranks goes on as the stock framework's own resume does, and says what isn't exact any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import change_world_size
from tests.ranks.launch import Ranks


@pytest.mark.parametrize(
    ("kind", "written", "now"),
    [
        ("ddp", 2, 4),
        ("ddp", 2, 1),
        pytest.param("fsdp-sharded", 4, 2, marks=pytest.mark.slow),
        pytest.param("ddp", 4, 2, marks=pytest.mark.slow),
        pytest.param("ddp", 1, 2, marks=pytest.mark.slow),
        pytest.param("fsdp-sharded", 2, 4, marks=pytest.mark.slow),
        pytest.param("fsdp-sharded", 2, 1, marks=pytest.mark.slow),
        pytest.param("fsdp-full", 2, 4, marks=pytest.mark.slow),
    ],
)
def test_another_world_size_goes_on_as_stock_does(
    forks: ForkServer, tmp_path: Path, kind: str, written: int, now: int
) -> None:
    """The same weights, optimizer and losses as stock has from the same checkpoint at the new number of ranks."""
    change_world_size(forks, tmp_path, kind, written, now)


@pytest.mark.parametrize(("written", "now"), [(2, 1), (1, 2)])
def test_every_rank_has_what_rank_0_held(forks: ForkServer, tmp_path: Path, written: int, now: int) -> None:
    """With other ranks a callback's counts and averages don't begin anew; its generators do. That is said."""
    spec: dict[str, Any] = {"program": "tests.ranks.own_part:train", "vault": str(tmp_path / "vault")}
    assert all(Ranks(forks, tmp_path / "a", [tmp_path / "o"] * written, dies=5, **spec).start().wait())
    group = Ranks(forks, tmp_path / "b", [tmp_path / "o"] * now, **spec).start()
    group.succeed()
    for rank in range(now):
        first = next(note for note in group.notes(rank) if "steps" in note)
        assert first == {"at": 4, "steps": 4, "average": 3.0625}
    said = group.events(0, "inexact")
    assert any(one.startswith("checkpoint-4 doesn't hold Counts.draws, which") for one in said)
    others = [one for one in said if "another number of ranks" in one]
    assert len(others) == (written > 1)
    assert all("each of which held something else in Counts.share: all" in one for one in others)
