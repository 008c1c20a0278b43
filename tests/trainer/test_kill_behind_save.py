"""A SIGKILL right behind a save, on a disk that outlives it: nothing is lost that had been saved."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.forks import ForkServer


@pytest.mark.parametrize("program", ["trainer", "loop", "attached"])
@pytest.mark.parametrize("width", [1, 40], ids=["small", "larger"])
@pytest.mark.parametrize("store", ["slow", "down"])
def test_a_kill_right_behind_a_save_loses_nothing(
    program: str, width: int, store: str, tmp_path: Path, forks: ForkServer
) -> None:
    """Killed while nothing, or little, is in the vault, a run goes on from the newest save that had returned."""
    call = f"tests.trainer.killed_behind_save:{program}"
    words = {
        "output": str(tmp_path / "out"),
        "vault": str(tmp_path / "vault"),
        "width": width,
        "bandwidth": "100KB" if store == "slow" else None,
        "outage": store == "down",
    }
    killed = forks.run(call, {**words, "kill_at": 8}, tmp_path / "log-1")
    assert killed.code == -signal.SIGKILL, killed.errors
    saved = [int(line.split()[1]) for line in killed.output.splitlines() if line.startswith("SAVED")]
    assert saved == [4, 8]
    again = forks.run(call, {**words, "kill_at": 0, "outage": False}, tmp_path / "log-2")
    assert again.output.split()[-2:] == ["START", "8"], again.errors
