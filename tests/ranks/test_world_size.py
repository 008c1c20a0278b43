"""Another number of ranks goes on as the stock framework's own resume does, and says what isn't exact any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.ranks.checks import change_world_size


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
