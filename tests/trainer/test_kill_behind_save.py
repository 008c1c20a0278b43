"""A SIGKILL right behind a save, on a disk that outlives it: nothing is lost that had been saved."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import transformers

from tests.forks import ForkServer
from tests.ranks.launch import Ranks


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


@pytest.mark.parametrize("store", ["up", "down"])
def test_a_kill_right_behind_the_last_file_of_a_save_loses_nothing(
    store: str, tmp_path: Path, forks: ForkServer
) -> None:
    """Killed when the Trainer has written all files of a checkpoint, and nothing else, a run goes on from it."""
    call = "tests.trainer.killed_behind_save:trainer"
    words = {"output": str(tmp_path / "out"), "vault": str(tmp_path / "vault")}
    killed = forks.run(
        call, {**words, "kill_at": 8, "moment": "written", "outage": store == "down"}, tmp_path / "log-1"
    )
    assert killed.code == -signal.SIGKILL, killed.errors
    assert "SAVED 8" not in killed.output
    again = forks.run(call, {**words, "kill_at": 0}, tmp_path / "log-2")
    assert again.output.split()[-2:] == ["START", "8"], again.errors
    assert "the numbers may differ" not in again.errors, again.errors


@pytest.mark.skipif(
    transformers.__version__ < "5",
    reason="stock transformers 4 maps an optimizer to a device cpu:<rank> that torch doesn't know",
)
@pytest.mark.parametrize(
    ("nodes", "moment"),
    [
        (False, "written"),
        (True, "behind"),
        pytest.param(False, "behind", marks=pytest.mark.slow),
        pytest.param(True, "written", marks=pytest.mark.slow),
    ],
)
def test_ranks_that_are_killed_together_lose_nothing(
    nodes: bool, moment: str, tmp_path: Path, forks: ForkServer
) -> None:
    """The same for two ranks on one disk or on two, with a vault that is out of reach: each disk has its part."""
    outputs = [tmp_path / (f"out-{rank}" if nodes else "out") for rank in range(2)]
    ranks = Ranks(
        forks,
        tmp_path,
        outputs,
        program="tests.trainer.killed_behind_save:trainer",
        vault=str(tmp_path / "vault"),
    )
    killed = ranks.start(kill_at=8, moment=moment, outage=True)
    assert killed.wait(agents=False)[0] == -signal.SIGKILL, killed.errors()
    again = ranks.start(kill_at=0)
    again.succeed()
    assert [again.outcomes[rank].output.split()[-2:] for rank in range(2)] == [["START", "8"]] * 2
